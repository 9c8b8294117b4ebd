"""Writing a study to MLflow and reading it back, on real local stores."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.artifact import Artifact
from autopilot.errors import AutopilotError, BadInput
from autopilot.outputs import write_outputs, write_result
from autopilot.result import HELD_AGAIN, MlflowRef, Status, StudyResult
from autopilot.testing import FAKE_BUDGET, fake_measured, fake_result, unbounded
from autopilot.tracking import Goal, Ruling, Store, Tracker, load_result, resolve_model
from autopilot.tracking import tracker as tracker_module
from tests import models

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and no study; made once, since that takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # mlflow itself sets it in this process
        Store.current().client()
    return folder / "mlruns" / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's project folder, the current directory, with a tracking store of its own."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def start(result: StudyResult, run_id: str | None = None, **more: Any) -> Tracker:
    """A tracker for ``result``'s study."""
    return Tracker.start(
        result.name,
        spec_text=f"name: {result.name}\n",
        budget=result.budget,
        environment=result.environment,
        run_id=run_id,
        **more,
    )


def study(
    project: Path, status: Status = Status.IN_BUDGET, *, seed: int = 0, name: str = "fake-study"
) -> tuple[MlflowRef, StudyResult, Path]:
    """Write a whole study to disk and to MLflow: where it is, the result, the run folder."""
    model = models.cnn()
    model.doc_string = f"seed {seed}"
    artifact = Artifact.of([models.write(model, project / f"model{seed}.onnx")])
    out = project / "runs" / f"{name.replace('/', '-')}-{seed}"
    result = write_outputs(fake_result(status, artifact=artifact, name=name), out, artifact)
    tracker = start(result)
    for record in result.trials:
        tracker.log_trial(record)
    ref = tracker.finish(result, out, out / "best" if status is Status.IN_BUDGET else None)
    return ref, result, out


def client() -> Any:
    """A client of MLflow's own on the store of the current folder.

    The path is absolute since mlflow keeps one open store a URI, whatever the current folder.
    """
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}")


def children(run_id: str) -> list[Any]:
    """The nested runs of a study, by trial number."""
    api = client()
    experiments = [e.experiment_id for e in api.search_experiments()]
    found = api.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{run_id}'")
    return sorted(found, key=lambda run: int(run.data.tags["number"]))


def test_study_is_one_parent_run_with_a_nested_run_a_trial(project: Path) -> None:
    """Searching MLflow finds what was tried, what was measured and how it ended."""
    ref, result, _ = study(project)

    parent = client().get_run(ref.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["status"] == "in_budget"
    assert parent.data.metrics["speedup"] == pytest.approx(2.5)
    assert parent.data.metrics["best/latency_p50_ms"] == pytest.approx(0.4)
    assert parent.data.params["budget.latency_p50_ms"] == "<= 70% of baseline"
    nested = children(ref.run_id)
    assert [run.data.tags["state"] for run in nested] == ["complete", "complete", "failed"]
    assert nested[1].data.params["static_int8.per_channel"] == "True"
    assert nested[1].data.params["provider"] == "cpu"
    measured = result.trials[1].measured["latency_p50_ms"]
    assert nested[1].data.metrics["latency_p50_ms"] == measured.value
    assert nested[1].data.metrics["latency_p50_ms_high"] == measured.high
    assert nested[1].data.metrics["seconds.profile"] == 1.5
    assert "energy_mj" not in nested[1].data.metrics
    assert nested[1].data.tags["verdict.size_mb"] == "in"
    assert (nested[2].data.tags["failure"], nested[2].info.status) == ("build_error", "FAILED")


def test_trials_are_named_by_what_differs_and_tagged_with_their_place(project: Path) -> None:
    """The winner is found in MLflow's table; what a later result says of a trial takes the place of what was said."""
    result = fake_result()
    result = replace(result, trials=tuple(replace(t, stage="profile") for t in result.trials))
    tracker = start(result, naming=lambda variant: f"short {len(variant.recipe.steps)}")
    tracker.finish(result, project)

    first = children(tracker.run_id)
    start(result, run_id=tracker.run_id).finish(replace(result, best=None, nearest=None), project)

    assert [run.info.run_name for run in first] == ["000 short 0", "001 ★ short 1", "002 short 1"]
    assert [run.info.run_name for run in children(tracker.run_id)] == ["000 short 0", "001 short 1", "002 short 1"]
    assert [run.data.tags.get("place") for run in first] == ["baseline", "best", None]
    assert [run.data.tags.get("place") for run in children(tracker.run_id)] == ["baseline", None, None]


def course(run_id: str, metric: str) -> dict[int, list[float]]:
    """The points of a metric of a run, by step."""
    points: dict[int, list[float]] = {}
    for point in client().get_metric_history(run_id, f"across_trials/{metric}"):
        points.setdefault(point.step, []).append(point.value)
    return points


def test_parent_run_has_a_point_a_trial_while_the_search_goes_on(project: Path) -> None:
    """The charts can be watched: a trial's point is there with its nested run."""
    result = fake_result()
    tracker = start(result, goals=[Goal("latency_p50_ms")])

    tracker.log_trial(result.trials[0])
    assert course(tracker.run_id, "latency_p50_ms") == {0: [1.0]}
    assert course(tracker.run_id, "best_latency_p50_ms") == {}
    tracker.log_trial(result.trials[1])
    tracker.log_trial(result.trials[2])

    assert course(tracker.run_id, "best_latency_p50_ms") == {1: [0.4], 2: [0.4]}
    assert course(tracker.run_id, "in_budget") == {0: [0.0], 1: [1.0], 2: [1.0]}
    assert course(tracker.run_id, "failed")[2] == [1.0]


@pytest.mark.parametrize("remembered", [True, False])
def test_resumed_study_goes_on_with_its_charts_and_draws_no_point_twice(project: Path, remembered: bool) -> None:
    """Also where the trials of before are known only at the end."""
    result = fake_result()
    goals = [Goal("latency_p50_ms")]
    first = start(result, goals=goals)
    first.log_trial(result.trials[0])
    first.log_trial(result.trials[1])

    second = start(result, run_id=first.run_id, goals=goals)
    if remembered:
        second.remember(result.trials[:2])
    second.log_trial(result.trials[2])
    assert set(course(first.run_id, "in_budget")) == ({0, 1, 2} if remembered else {0, 1})
    second.finish(result, project)

    assert course(first.run_id, "in_budget") == {0: [0.0], 1: [1.0], 2: [1.0]}
    assert course(first.run_id, "best_latency_p50_ms") == {1: [0.4], 2: [0.4]}


def test_version_has_description_hashes_and_an_input_example(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What, why and verdict for people; the spec's digest for machines; a request that can be sent at once."""
    import hashlib

    import mlflow

    artifact = Artifact.of([models.write(models.cnn(), project / "m.onnx")])
    image = models.samples(models.cnn(), 1)["image"]
    result = write_outputs(fake_result(artifact=artifact), project / "out", artifact)

    ref = start(result).finish(result, project / "out", project / "out" / "best", example={"image": image})

    version = client().get_model_version("fake-study", "1")
    assert all(word in version.description for word in ("**What:**", "**Why:**", "**Verdict:** in budget"))
    assert version.tags["spec_sha256"] == hashlib.sha256(b"name: fake-study\n").hexdigest()
    assert (ref.champion, version.tags["champion"]) == (True, "crowned: no champion to compare with")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlruns' / 'mlflow.db'}")
    uri = f"models:/{ref.model}@champion"
    model = mlflow.pyfunc.load_model(uri)
    example = mlflow.models.Model.load(uri).load_input_example(mlflow.artifacts.download_artifacts(uri))
    np.testing.assert_array_equal(example["image"], image)
    assert model.predict(example)["logits"].shape == (1, 4)


def test_winner_that_did_not_beat_the_champion_is_a_version_without_alias(project: Path) -> None:
    """The champion and its ladder stay; the version says why it isn't one."""
    study(project, seed=0)
    artifact = Artifact.of([models.write(models.cnn(), project / "slower.onnx")])
    result = write_outputs(fake_result(artifact=artifact), project / "out", artifact)

    ruling = Ruling(False, "0.99 times that of version 1")
    ref = start(result).finish(result, project / "out", project / "out" / "best", ruling=ruling)

    assert (ref.version, ref.champion, ref.ruling, ref.fallbacks) == (2, False, "0.99 times that of version 1", ())
    assert {k: int(v) for k, v in client().get_registered_model("fake-study").aliases.items()} == {"champion": 1}
    assert client().get_model_version("fake-study", "2").tags["champion"].startswith("not champion: 0.99 times")
    assert StudyResult.from_json(load_result(ref.run_id)).mlflow == ref


def test_same_variant_again_keeps_previous(project: Path) -> None:
    """``previous`` must lead back to something else."""
    study(project, seed=0)
    study(project, seed=1)
    artifact = Artifact.of([models.write(models.cnn(), project / "again.onnx")])
    result = write_outputs(fake_result(artifact=artifact), project / "out", artifact)

    ruling = Ruling(True, "the same", keeps_previous=True)
    start(result).finish(result, project / "out", project / "out" / "best", ruling=ruling)

    aliases = {k: int(v) for k, v in client().get_registered_model("fake-study").aliases.items()}
    assert aliases == {"champion": 3, "previous": 1}


def test_trials_are_found_by_parameter_metric_and_tag(project: Path) -> None:
    """The names chosen work in MLflow's search language."""
    ref, _, _ = study(project)
    query = "params.`static_int8.per_channel` = 'True' and metrics.latency_p50_ms < 0.5 and tags.verdict = 'in'"

    found = client().search_runs([client().get_run(ref.run_id).info.experiment_id], query)

    assert [run.data.tags["number"] for run in found] == ["1"]


def test_reference_names_the_local_store_in_its_relative_form(project: Path) -> None:
    """result.json says what users type, and artifacts lie in mlruns/artifacts."""
    ref, result, out = study(project)
    write_result(replace(result, mlflow=ref), out)

    assert StudyResult.load(out).mlflow == ref
    assert ref.tracking_uri == "sqlite:///mlruns/mlflow.db"
    assert (ref.experiment, ref.model, ref.version) == ("fake-study", "fake-study", 1)
    logged = {p.name for p in (project / "mlruns" / "artifacts").rglob("*") if p.is_file()}
    assert {"result.json", "trials.csv", "spec.yaml", "variant.json", "model.onnx", "MLmodel"} <= logged
    assert sorted(p.name for p in project.iterdir()) == ["mlruns", "model0.onnx", "runs"]


def test_store_follows_no_change_of_directory(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker goes on writing where it began."""
    result = fake_result()
    tracker = start(result)
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")

    tracker.log_trial(result.trials[0])

    monkeypatch.chdir(project)
    assert len(children(tracker.run_id)) == 1
    assert list((project / "elsewhere").iterdir()) == []


def test_load_result_gives_result_json_back(project: Path) -> None:
    """``show RUN`` needs nothing but the run's id."""
    ref, result, _ = study(project)

    assert StudyResult.from_json(load_result(ref.run_id)) == replace(result, mlflow=ref)


def test_load_result_refuses_an_unknown_run(project: Path) -> None:
    """A mistyped id is bad input."""
    with pytest.raises(BadInput, match=r"'0123abcd'.*no result\.json"):
        load_result("0123abcd")


def test_load_result_refuses_a_folder_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking something up makes no database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(BadInput, match="no MLflow store"):
        load_result("0123abcd")
    assert list(tmp_path.iterdir()) == []


def test_pyfunc_answers_with_the_winner(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone can load the champion with MLflow alone; the signature is the model's own."""
    import mlflow

    from autopilot.serving import load

    ref, _, out = study(project)
    image = models.samples(models.cnn(), 4)["image"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlruns' / 'mlflow.db'}")

    model = mlflow.pyfunc.load_model(f"models:/{ref.model}@champion")

    np.testing.assert_array_equal(
        model.predict({"image": image})["logits"], load(out / "best")({"image": image})["logits"]
    )
    assert model.metadata.signature is not None
    assert [t.name for t in model.metadata.signature.inputs] == ["image"]
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    assert model.metadata.flavors["python_function"]["loader_module"] == "autopilot.serving"


def test_logged_model_holds_no_pickle_and_pinned_requirements(project: Path) -> None:
    """Loading a model from the registry runs no code that came with it."""
    (project / "uv.lock").write_text("secret = 1\n")
    (project / "pyproject.toml").write_text("[project]\nname = 'users-own'\nversion = '1'\n")

    study(project)

    (mlmodel,) = (project / "mlruns").rglob("MLmodel")
    files = {p.relative_to(mlmodel.parent).as_posix() for p in mlmodel.parent.rglob("*") if p.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pickle"))]
    assert not files & {"uv.lock", "pyproject.toml"}
    assert "loader_module: autopilot.serving" in mlmodel.read_text()
    required = (mlmodel.parent / "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in required} == {"mlflow", "model-autopilot", "onnxruntime", "numpy"}
    assert all("==" in line for line in required)


def test_champion_moves_and_the_one_before_is_previous(project: Path) -> None:
    """The aliases are bound to versions that carry the file's digest and the budget's version."""
    study(project, seed=0)
    study(project, seed=1)
    ref, result, _ = study(project, seed=2)

    registered = client().get_registered_model("fake-study")
    assert ref.version == 3
    assert {k: int(v) for k, v in registered.aliases.items()} == {"champion": 3, "previous": 2}
    champion = client().get_model_version_by_alias("fake-study", "champion")
    assert result.best is not None
    assert champion.tags["sha256"] == result.best.sha256
    assert champion.tags["budget_version"] == "3"
    assert champion.run_id == ref.run_id


@pytest.mark.parametrize("status", [Status.NO_FIT, Status.UNDECIDED])
def test_no_alias_moves_when_the_budget_is_not_met(project: Path, status: Status) -> None:
    """Whoever serves the champion keeps serving the last one that met its budget."""
    study(project, seed=0)

    ref, _, _ = study(project, status, seed=1)

    registered = client().get_registered_model("fake-study")
    assert (ref.model, ref.version) == (None, None)
    assert {k: int(v) for k, v in registered.aliases.items()} == {"champion": 1}
    nearest = resolve_model(f"runs:/{ref.run_id}/nearest", project / "got")
    assert nearest.read_bytes() == (project / "model1.onnx").read_bytes()


def test_names_that_the_registry_refuses_are_changed(project: Path) -> None:
    """A slash or colon in the spec's name costs neither the run nor the registration."""
    ref, _, _ = study(project, name="team/vision:v1")

    assert ref.experiment == "team/vision:v1"
    assert ref.model == "team-vision-v1"
    assert resolve_model("models:/team-vision-v1@champion", project / "got").is_file()


@pytest.mark.parametrize(
    "uri", ["models:/fake-study@champion", "models:/fake-study/1", "RUN/best", "RUN/best/model.onnx"]
)
def test_model_uris_give_the_winners_file(project: Path, uri: str) -> None:
    """The forms a spec's ``model:`` may have lead to the same bytes."""
    ref, _, _ = study(project)

    found = resolve_model(uri.replace("RUN", f"runs:/{ref.run_id}"), project / "got")

    assert found.is_relative_to(project / "got")
    assert found.read_bytes() == (project / "model0.onnx").read_bytes()


def test_onnx_file_of_a_run_brings_its_external_data(project: Path) -> None:
    """An ONNX file at a run's root, logged by someone else, is fetched with its weights."""
    import onnx

    tracker = start(fake_result())
    models.write(models.cnn(), project / "big" / "big.onnx", external=True)
    api = client()
    api.log_artifacts(tracker.run_id, str(project / "big"))

    found = resolve_model(f"runs:/{tracker.run_id}/big.onnx", project / "got")

    onnx.checker.check_model(str(found))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/nobody@champion", "nobody"),
        ("models:/fake-study@absent", "absent"),
        ("models:/fake-study/77", "77"),
        ("models:/fake-study", "fake-study"),
        ("models:/", "names no model"),
        ("runs:/0123abcd/best", "0123abcd"),
        ("RUN/nowhere", "nowhere"),
        ("RUN/best/other.onnx", r"other\.onnx"),
        ("RUN/spec.yaml", "not an ONNX file"),
    ],
)
def test_model_uri_that_leads_nowhere_is_bad_input(project: Path, uri: str, message: str) -> None:
    """One sentence with the URI, whatever part of it is wrong."""
    ref, _, _ = study(project)

    with pytest.raises(BadInput, match=message):
        resolve_model(uri.replace("RUN", f"runs:/{ref.run_id}"), project / "got")


def test_resumed_study_reopens_its_run_and_logs_no_trial_twice(project: Path) -> None:
    """After a kill the same parent run goes on, with one nested run a trial."""
    result = fake_result()
    first = start(result)
    first.log_trial(result.trials[0])
    first.log_trial(result.trials[1])

    second = start(result, run_id=first.run_id)
    for record in result.trials:
        second.log_trial(record)
    second.finish(result, project)

    assert second.run_id == first.run_id
    assert [run.data.tags["number"] for run in children(first.run_id)] == ["0", "1", "2"]
    assert client().get_run(first.run_id).info.status == "FINISHED"


def test_trial_cut_off_while_being_logged_is_completed(project: Path) -> None:
    """A kill between MLflow's calls leaves a run that the resume fills in, not a second one."""
    result = fake_result()
    tracker = start(result)
    half = client().create_run(
        client().get_run(tracker.run_id).info.experiment_id,
        tags={"mlflow.parentRunId": tracker.run_id, "number": "0"},
    )

    start(result, run_id=tracker.run_id).log_trial(result.trials[0])

    (run,) = children(tracker.run_id)
    assert run.info.run_id == half.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.metrics["latency_p50_ms"] == 1.0


def test_verified_trial_updates_its_run(project: Path) -> None:
    """A finalist's figures from the held-back data replace the first ones in the same nested run."""
    result = fake_result()
    tracker = start(result)
    tracker.log_trial(result.trials[1])

    tracker.log_trial(replace(result.trials[1], measured=fake_measured(latency_ms=0.45)))

    (run,) = children(tracker.run_id)
    assert run.data.metrics["latency_p50_ms"] == 0.45


def test_trial_that_a_later_result_did_not_verify_keeps_nothing_of_an_earlier_one(project: Path) -> None:
    """A study that goes on has other finalists: its table must not show a second verdict that the result hasn't."""
    result = fake_result()
    trial = result.trials[1]
    tracker = start(result)
    tracker.log_trial(replace(trial, stage="verify", reason=HELD_AGAIN, verified=trial.verdict, warnings=("odd",)))

    start(result, run_id=tracker.run_id).log_trial(replace(trial, reason="", warnings=()))

    (run,) = children(tracker.run_id)
    assert not {"verified", "reason", "warnings"} & run.data.tags.keys()
    assert run.data.tags["verdict"] == "in"


@pytest.mark.parametrize("cut_off_at", ["set_tag", "update_run"])
def test_star_follows_the_winner_wherever_marking_was_cut_off(
    project: Path, monkeypatch: pytest.MonkeyPatch, cut_off_at: str
) -> None:
    """Interrupted between a trial's tag and its name, the next marking finds both as they should be."""
    result = fake_result()
    tracker = start(result, naming=lambda variant: "x")
    tracker.log_trial(result.trials[1])
    places = {1: "best"}

    def stopped(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(tracker._client), cut_off_at, stopped)
        with pytest.raises(KeyboardInterrupt):
            tracker._trials.place(places)
    again = start(result, run_id=tracker.run_id)._trials
    again.place(places)
    (won,) = children(tracker.run_id)
    again.place({1: "finalist"})
    (lost,) = children(tracker.run_id)

    assert (won.info.run_name, won.data.tags["place"]) == ("001 ★ x", "best")
    assert (lost.info.run_name, lost.data.tags["place"]) == ("001 x", "finalist")


def test_finish_again_registers_no_second_version(project: Path) -> None:
    """A resume after a kill in the middle of finishing finds its version."""
    ref, result, out = study(project)

    again = start(result, run_id=ref.run_id).finish(result, out, out / "best")

    assert again == ref
    assert [int(v.version) for v in client().search_model_versions("name='fake-study'")] == [1]


def test_version_says_what_the_last_result_of_a_study_that_went_on_says(project: Path) -> None:
    """The budget's version and why it changed may differ when a finished study gets more trials."""
    ref, result, out = study(project)
    raised = replace(result, budget_version=4)

    start(raised, run_id=ref.run_id).finish(raised, out, out / "best")

    (version,) = client().search_model_versions("name='fake-study'")
    assert version.tags["budget_version"] == "4"
    assert "version 4" in version.description


def test_run_that_is_gone_is_replaced(project: Path) -> None:
    """A resume against a store that was deleted meanwhile starts a new run."""
    tracker = start(fake_result(), run_id="0123456789abcdef0123456789abcdef")

    assert tracker.run_id != "0123456789abcdef0123456789abcdef"
    assert client().get_run(tracker.run_id).info.status == "RUNNING"


def test_interrupted_study_is_marked_as_killed(project: Path) -> None:
    """Ctrl-C leaves no run that looks alive."""
    with pytest.raises(KeyboardInterrupt), start(fake_result()) as tracker:
        raise KeyboardInterrupt

    assert client().get_run(tracker.run_id).info.status == "KILLED"


def test_unbounded_interval_is_left_out_of_the_metrics(project: Path) -> None:
    """MLflow gets finite numbers only."""
    result = unbounded(fake_result())
    tracker = start(result)

    tracker.log_trial(result.trials[0])

    (run,) = children(tracker.run_id)
    assert run.data.metrics["latency_p99_ms_low"] == 2.5
    assert "latency_p99_ms_high" not in run.data.metrics


def test_deleted_experiment_is_named(project: Path) -> None:
    """MLflow keeps the name of a deleted experiment; the hint says how to get it back."""
    tracker = start(fake_result())
    client().delete_experiment(client().get_run(tracker.run_id).info.experiment_id)

    with pytest.raises(AutopilotError, match=r"was deleted.*restore"):
        start(fake_result())


class Broken:
    """Stands in for a client whose server went away; counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            raise ConnectionError("no route to host")

        return call


def test_store_that_goes_away_is_left_alone_and_caught_up_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error, then silence for a while; nothing is lost once the store is back."""
    result = fake_result()
    tracker = start(result)
    healthy, broken = tracker._trials.client, Broken()
    tracker._trials.client = broken  # type: ignore[assignment]

    with pytest.raises(AutopilotError, match="no route to host"):
        tracker.log_trial(result.trials[0])
    tracker.log_trial(result.trials[1])
    assert broken.calls == 1
    tracker._trials.client = healthy
    monkeypatch.setattr(tracker, "_retry_at", 0.0)
    tracker.log_trial(result.trials[2])

    assert [run.data.tags["number"] for run in children(tracker.run_id)] == ["0", "1", "2"]


def test_finish_logs_the_trials_that_were_missed(project: Path) -> None:
    """The end of the study is the last chance, cool-down or not."""
    result = fake_result()
    tracker = start(result)
    tracker._retry_at = time.monotonic() + tracker_module.COOL_DOWN_S
    tracker.log_trial(result.trials[0])
    assert children(tracker.run_id) == []

    tracker.finish(result, project)

    assert len(children(tracker.run_id)) == 3


def test_unreachable_server_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead server costs seconds, not minutes, and one sentence."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    importlib.import_module("mlflow.tracking")  # which takes seconds too, and isn't what is asked
    began = time.monotonic()

    with pytest.raises(AutopilotError, match=r"http://127\.0\.0\.1:9 failed") as caught:
        start(fake_result())

    assert time.monotonic() - began < 60  # MLflow's own way of asking again takes four minutes
    assert "\n" not in str(caught.value)


def test_damaged_database_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no database gives our error, not SQLAlchemy's traceback."""
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"not a database" * 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(AutopilotError, match="opening the tracking store"):
        start(fake_result())


def test_tracking_uri_of_the_environment_is_honoured(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_TRACKING_URI decides, and the current folder stays clean."""
    (tmp_path / "here").mkdir()
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path / "here")

    tracker = start(fake_result())
    ref = tracker.finish(fake_result(), tmp_path)

    assert ref.tracking_uri == uri
    assert os.environ["MLFLOW_TRACKING_URI"] == uri
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("theirs", [None, "sqlite:////tmp/theirs.db"])
def test_global_state_of_mlflow_is_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, theirs: str | None
) -> None:
    """A notebook that tracks elsewhere goes on doing so."""
    import mlflow

    ours = f"sqlite:///{project / 'mlruns' / 'mlflow.db'}"
    monkeypatch.setattr(tracker_module.Store, "current", lambda: Store(ours, ours, project, project / "mlruns"))
    mlflow.set_tracking_uri(theirs)  # type: ignore[arg-type]  # None unsets it

    def state() -> tuple[Any, ...]:
        return mlflow.get_tracking_uri(), mlflow.active_run(), os.environ.get("MLFLOW_TRACKING_URI")

    before = state()
    try:
        ref, _, _ = study(project)
        after = state()
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]

    assert ref.version == 1
    assert after == before


FIRST_USE = """
import sys, time
from autopilot.testing import fake_result, FAKE_BUDGET
from autopilot.tracking import Tracker
import psutil
assert "mlflow" not in sys.modules
t = Tracker.start("quiet", spec_text="", budget=FAKE_BUDGET, environment={})
for record in fake_result().trials:
    t.log_trial(record)
import mlflow.telemetry.client as telemetry
assert telemetry.get_telemetry_client() is None, "telemetry is on"
print(psutil.Process().memory_info().rss)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_first_use_is_quiet_private_and_small(tmp_path: Path) -> None:
    """A new store prints nothing, phones nobody, and takes little more memory than MLflow itself."""
    switches = ("MLFLOW", "DO_NOT_TRACK", "CI", "GITHUB_ACTIONS", "PYTEST")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(switches)}
    root = str(Path(__file__).resolve().parents[2])

    done, plain = (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        for code in (FIRST_USE, "import mlflow, psutil; print(psutil.Process().memory_info().rss)")
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    taken, *loaded = done.stdout.split()
    # 240 MB over 170 MB on one machine. Pages and versions of MLflow differ, and both figures with them.
    assert int(taken) < 2.5 * int(plain.stdout)
    assert not {"torch", "sklearn", "matplotlib", "transformers"} & set(loaded)
    assert (tmp_path / "mlruns" / "mlflow.db").is_file()


def test_importing_tracking_loads_no_mlflow() -> None:
    """The library is loaded when something is logged, not before."""
    code = "import sys, autopilot.tracking; sys.exit('mlflow' in sys.modules or 'pandas' in sys.modules)"
    root = str(Path(__file__).resolve().parents[2])

    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=300, check=False).returncode == 0


def test_budget_of_the_fake_is_what_is_logged(project: Path) -> None:
    """The limits are parameters of the parent run, to compare studies by budget."""
    tracker = start(fake_result())

    params = client().get_run(tracker.run_id).data.params

    assert params == {f"budget.{limit.axis}": limit.text for limit in FAKE_BUDGET.limits}
