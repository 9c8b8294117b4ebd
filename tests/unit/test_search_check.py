"""``check``: what it refuses to compare, and how a verdict becomes an exit code."""

from __future__ import annotations

import importlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autopilot.artifact import Artifact
from autopilot.display import render_check
from autopilot.errors import BadInput, Failure, ModelError, VariantFailed
from autopilot.model import ModelInfo
from autopilot.observer import NullObserver
from autopilot.recipe import Recipe
from autopilot.result import Status
from autopilot.search.check import check_model
from autopilot.search.outcome import Outcome
from autopilot.search.prepare import Setup
from autopilot.search.samples import Samples
from autopilot.spec import TargetSpec
from tests.unit.search_support import Facts, FakeEvaluator, artifact_of, info_of, setup_of

# The package exports a function of the module's name.
module = importlib.import_module("autopilot.search.check")


def text_of(renderable: Any) -> str:
    """What is printed."""
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


AUDITED = (Failure.PROVIDER_FALLBACK, Failure.FAKE_INT8)
BUNDLE = {"provider": "cpu", "threads": 1, "batch": 1, "arena": True}


def checked(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    setup: Setup | None = None,
    info: ModelInfo | None = None,
    facts: Facts | None = None,
    samples: Path | None = None,
) -> Any:
    """``check_model`` with a simulated measurement."""
    setup = setup or setup_of(model.parent)
    monkeypatch.setattr(module, "inspect", lambda path: info or info_of())
    monkeypatch.setattr(module, "prepare", lambda problem, work, observer: setup)
    monkeypatch.setattr(Artifact, "of", lambda files, **more: artifact_of(Recipe()))
    monkeypatch.setattr(module, "Evaluator", lambda s, o: FakeEvaluator(s, o, lambda v: facts or Facts()))
    return check_model(model, setup.problem, observer=NullObserver(), samples=samples)


def bundle(folder: Path, **changes: Any) -> Path:
    """A bundle's folder with its deployment."""
    (folder / "variant.json").write_text(json.dumps({"deployment": BUNDLE | changes}))
    return folder


@pytest.mark.parametrize(
    ("facts", "status", "code"),
    [
        (Facts(0.5), Status.IN_BUDGET, 0),
        (Facts(0.9), Status.NO_FIT, 3),
        (Facts(0.6, noise=0.05), Status.UNDECIDED, 4),
        (Facts(0.5, drop_later=0.5), Status.NO_FIT, 3),
    ],
)
def test_verdict_becomes_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: Facts, status: Status, code: int
) -> None:
    """The measurement on held-back data alone decides."""
    found = checked(tmp_path / "model.onnx", monkeypatch, facts=facts)

    assert (found.status, found.exit_code) == (status, code)


def test_bundle_is_run_in_its_own_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the spec's default one."""
    found = checked(bundle(tmp_path, arena=False), monkeypatch)

    assert dict(found.deployment.options) == {"arena": False}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threads": 2}, "runs in 2 threads; here 1 are allowed"),
        ({"instances": 2}, "runs in 2 threads; here 1 are allowed"),
        ({"max_delay_ms": 2.0}, "made for server traffic"),
        ({"batch": 8}, "takes 8 samples a request"),
        ({"provider": "cuda"}, "runs on cuda"),
        ({"turbo": True}, "sets turbo"),
        ({"arena": "maybe"}, "sets arena"),
    ],
)
def test_bundle_that_the_spec_does_not_allow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    """More threads or another batch size would pass a gate that the spec's target does not."""
    setup = setup_of(tmp_path)
    setup = replace(setup, problem=replace(setup.problem, target=TargetSpec(threads=1)))

    with pytest.raises(BadInput, match=said):
        checked(bundle(tmp_path, **changes), monkeypatch, setup=setup)


def test_offline_bundle_keeps_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the traffic leaves the size of a request open, the bundle chose it."""
    found = checked(bundle(tmp_path, batch=8), monkeypatch, setup=setup_of(tmp_path, scenario="offline"))

    assert found.deployment.batch == 8


def test_server_bundle_keeps_its_batching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any batch may be made of single requests."""
    found = checked(
        bundle(tmp_path, batch=8, max_delay_ms=2.0), monkeypatch, setup=setup_of(tmp_path, scenario="server")
    )

    assert (found.deployment.batch, found.deployment.max_delay_ms) == (8, 2.0)


def test_model_of_whole_batches_is_refused_where_the_specs_takes_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a batch would not run."""
    with pytest.raises(BadInput, match="fixed at 8"):
        checked(bundle(tmp_path, batch=8), monkeypatch, setup=setup_of(tmp_path, scenario="server"), info=info_of(8))


def test_model_with_another_fixed_batch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't take the spec's requests."""
    with pytest.raises(BadInput, match="fixed at 8"):
        checked(tmp_path / "model.onnx", monkeypatch, info=info_of(8))


def test_model_with_other_inputs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides are named."""
    with pytest.raises(BadInput, match="inputs are image, the spec's model has x"):
        checked(tmp_path / "model.onnx", monkeypatch, info=info_of(inputs=("image",)))


@pytest.mark.parametrize("failure", [Failure.CRASH, Failure.OOM, Failure.TIMEOUT, Failure.WRONG_NUMERICS, *AUDITED])
def test_model_that_fails_while_it_runs_does_not_meet_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure
) -> None:
    """Exit 3 with the failure's class and no figures: a gate must not take it for a wrong command line."""
    found = checked(tmp_path / "model.onnx", monkeypatch, facts=Facts(failure_later=failure))

    assert (found.status, found.exit_code) == (Status.NO_FIT, 3)
    told = found.to_json()
    assert (told["failure"], told["measured"], told["verdict"]) == (failure, {}, {})
    assert told["reason"].startswith("simulated.")
    assert failure.value in text_of(render_check(told))


def test_unstable_machine_leaves_the_check_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4: it is the machine that was in the way, neither the model nor the command line."""
    found = checked(tmp_path / "model.onnx", monkeypatch, facts=Facts(failure_later=Failure.UNSTABLE))

    assert (found.status, found.exit_code, found.failure) == (Status.UNDECIDED, 4, Failure.UNSTABLE)
    assert "unstable" in text_of(render_check(found.to_json()))


def test_model_that_can_not_be_loaded_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure's class is in the message."""
    with pytest.raises(ModelError, match="unsupported"):
        checked(tmp_path / "model.onnx", monkeypatch, facts=Facts(failure_later=Failure.UNSUPPORTED))


def test_crash_that_does_not_come_again_is_bad_luck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash is tried once more, as in a search."""
    measure = FakeEvaluator.measure
    left = [VariantFailed(Failure.CRASH, "bad luck.")]

    def once(self: FakeEvaluator, *args: Any, **more: Any) -> Outcome:
        if left:
            raise left.pop()
        return measure(self, *args, **more)

    monkeypatch.setattr(FakeEvaluator, "measure", once)

    assert checked(tmp_path / "model.onnx", monkeypatch).status is Status.IN_BUDGET


def test_readings_are_written_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With budget, objective and the baseline's own, so that the file stands alone."""
    found = checked(tmp_path / "model.onnx", monkeypatch, samples=tmp_path / "check.npz")

    kept = Samples.load(tmp_path / "check.npz")
    assert kept.budget == found.budget
    assert kept.objective == "latency_p50_ms"
    assert kept.verdict == found.verdict
    assert kept.profile.latency is not None
    assert kept.baseline_profile is not None


@pytest.mark.parametrize("name", ["check.json", "gone/check.npz"])
def test_readings_that_can_not_be_written_are_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Not after minutes of measuring."""
    monkeypatch.setattr(FakeEvaluator, "measure_baseline", lambda self: pytest.fail("measured"))

    with pytest.raises(BadInput, match=r"can't be written"):
        checked(tmp_path / "model.onnx", monkeypatch, samples=tmp_path / name)


def test_check_from_python_takes_paths_text_or_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``autopilot.check`` is the command as a function."""
    import autopilot
    from autopilot import search

    seen: list[Any] = []
    monkeypatch.setattr(search, "load_spec", lambda spec: f"loaded {spec}")
    monkeypatch.setattr(search, "check_model", lambda model, problem, **more: seen.append((model, problem, more)))
    problem = setup_of(tmp_path).problem

    autopilot.check("model.onnx", "spec.yaml", samples="out.npz")
    autopilot.check(Path("model.onnx"), problem)

    assert [(m, p, more["samples"]) for m, p, more in seen] == [
        (Path("model.onnx"), "loaded spec.yaml", Path("out.npz")),
        (Path("model.onnx"), problem, None),
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"deployment": {"threads": 1}}'])
def test_damaged_bundle_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A torn variant.json is bad input, not a traceback."""
    (tmp_path / "variant.json").write_text(text)

    with pytest.raises(BadInput, match="damaged"):
        checked(tmp_path, monkeypatch)


def test_folder_without_variant_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is taken for a bundle."""
    with pytest.raises(BadInput, match=r"without variant\.json"):
        checked(tmp_path, monkeypatch)
