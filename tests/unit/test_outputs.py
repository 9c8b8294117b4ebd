"""The run folder: whole files, best/ or nearest/, never both."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from autopilot.artifact import Artifact, sha256_file
from autopilot.errors import BadInput, ModelError
from autopilot.outputs import check_writable, write_logged, write_outputs, write_result
from autopilot.profile import Measurement
from autopilot.result import Fallback, MlflowRef, Status, StudyResult
from autopilot.testing import FAKE_BUDGET, fake_measured, fake_result
from tests import models

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """A small CNN in a folder of its own, under another name than model.onnx."""
    (tmp_path / "built").mkdir()
    return Artifact.of([models.write(models.cnn(), tmp_path / "built" / "stage3.onnx")])


def _tree(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_in_budget_run_leaves_result_trials_and_best(tmp_path: Path, artifact: Artifact) -> None:
    """Exactly the files of the contract, and nothing left over from writing them."""
    out = tmp_path / "runs" / "x"

    written = write_outputs(fake_result(artifact=artifact), out, artifact)

    bundle = {"best/model.onnx", "best/variant.json", "best/README.md"}
    assert _tree(out) == {"result.json", "trials.csv", *bundle}
    assert written.best is not None
    assert written.best.artifact == "best/model.onnx"
    assert written.best.sha256 == artifact.sha256 == sha256_file(out / written.best.artifact)
    assert StudyResult.load(out) == written


@pytest.mark.parametrize("status", [Status.NO_FIT, Status.UNDECIDED])
def test_nearest_takes_the_place_of_an_earlier_best(tmp_path: Path, artifact: Artifact, status: Status) -> None:
    """A run that meets no budget leaves no best/ of an earlier one behind."""
    write_outputs(fake_result(), tmp_path / "out", artifact)

    written = write_outputs(fake_result(status), tmp_path / "out", artifact)

    assert not (tmp_path / "out" / "best").exists()
    assert (tmp_path / "out" / "nearest" / "model.onnx").is_file()
    assert written.best is None
    assert written.nearest is not None
    assert written.nearest.artifact == "nearest/model.onnx"


def test_best_replaces_an_earlier_best_and_nearest(tmp_path: Path, artifact: Artifact) -> None:
    """Files of an earlier winner don't survive in the new folder."""
    out = tmp_path / "out"
    write_outputs(fake_result(Status.NO_FIT), out, artifact)
    write_outputs(fake_result(), out, artifact)
    (out / "best" / "model.onnx.data").write_bytes(b"stale")

    write_outputs(fake_result(), out, artifact)

    assert not (out / "nearest").exists()
    assert _tree(out / "best") == {"model.onnx", "variant.json", "README.md"}


def test_earlier_folder_stays_whole_when_writing_fails(tmp_path: Path, artifact: Artifact) -> None:
    """A failure while the bundle is built touches nothing that was there."""
    out = tmp_path / "out"
    write_outputs(fake_result(), out, artifact)
    before = {name: (out / name).read_bytes() for name in _tree(out)}
    gone = replace(artifact, path=tmp_path / "gone.onnx", files=(tmp_path / "gone.onnx",))

    with pytest.raises(ModelError, match=r"gone\.onnx"):
        write_outputs(fake_result(name="other"), out, gone)

    assert {name: (out / name).read_bytes() for name in before} == before


def test_no_candidate_means_no_folder(tmp_path: Path, artifact: Artifact) -> None:
    """Where nothing could be chosen, neither best/ nor nearest/ is there, nor is an old one."""
    write_outputs(fake_result(), tmp_path, artifact)

    write_outputs(replace(fake_result(Status.NO_FIT), nearest=None), tmp_path, None)

    assert not (tmp_path / "best").exists()
    assert not (tmp_path / "nearest").exists()


def test_external_data_comes_along_and_the_model_loads(tmp_path: Path) -> None:
    """External data keeps its name, since the model refers to it; the digest describes the copy."""
    folder = tmp_path / "built"
    folder.mkdir()
    main = models.write(models.cnn(), folder / "m.onnx", external=True)
    artifact = Artifact.of([main, *sorted(p for p in folder.iterdir() if p != main)])
    assert len(artifact.files) > 1

    written = write_outputs(fake_result(artifact=artifact), tmp_path / "out", artifact)

    best = tmp_path / "out" / "best"
    onnx.checker.check_model(str(best / "model.onnx"))
    variant = json.loads((best / "variant.json").read_text())
    assert [f["name"] for f in variant["files"]] == ["model.onnx", *(f.name for f in artifact.files[1:])]
    assert all(sha256_file(best / f["name"]) == f["sha256"] for f in variant["files"])
    assert written.best is not None
    assert variant["sha256"] == written.best.sha256
    assert written.best.sha256 == Artifact.of([best / f["name"] for f in variant["files"]]).sha256


def test_variant_tells_inputs_deployment_and_data_mapping(tmp_path: Path, artifact: Artifact) -> None:
    """variant.json is enough to run the model as measured without the spec."""
    mapping = {"inputs": {"image": {"from": "pixels", "scale": 0.5}}, "batched": True}

    write_outputs(fake_result(), tmp_path, artifact, preprocessing=mapping)

    variant = json.loads((tmp_path / "best" / "variant.json").read_text())
    assert variant["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["N", 1, 8, 8]}]
    assert variant["deployment"]["threads"] == 1
    assert variant["deployment"]["spinning"] is False
    assert variant["preprocessing"] == mapping
    assert variant["verdict"]["latency_p50_ms"] == "in"
    assert variant["budget"]["latency_p50_ms"]["text"] == "<= 70% of baseline"


def test_readme_loads_in_python_and_shell(tmp_path: Path, artifact: Artifact) -> None:
    """Lines for both; the plain session gets the measured options, and no MLflow is named that has nothing."""
    write_outputs(fake_result(name="team/x"), tmp_path, artifact)

    text = (tmp_path / "best" / "README.md").read_text()
    assert "mlflow" not in text.lower()
    for line in (
        'autopilot.load(".")',
        "autopilot check .",
        "options.intra_op_num_threads = 1",
        'allow_spinning", "0"',
        "| latency_p50_ms <= 70% of baseline |",
    ):
        assert line in text


def _logged(result: StudyResult, out: Path, artifact: Artifact, **reference: Any) -> str:
    """The README of the winner, or of the nearest miss, once MLflow has the study."""
    written = write_outputs(result, out, artifact)
    ref = MlflowRef("sqlite:///mlruns/mlflow.db", "fake-study", "abc", **reference)
    write_logged(replace(written, mlflow=ref), out)
    assert StudyResult.load(out).mlflow == ref
    return (out / ("best" if written.best else "nearest") / "README.md").read_text()


def test_readme_names_the_registered_version_and_the_alias_it_took(tmp_path: Path, artifact: Artifact) -> None:
    """A version stays what it is; the alias is named as well where it is this one's."""
    text = _logged(fake_result(), tmp_path, artifact, model="team-x", version=3, champion=True)

    assert "load_model('models:/team-x/3')" in text
    assert "models:/team-x@champion" in text


def test_readme_names_no_champion_where_another_version_stayed_it(tmp_path: Path, artifact: Artifact) -> None:
    """Who follows the README of a winner that wasn't crowned gets that winner, and reads why it wasn't."""
    text = _logged(fake_result(), tmp_path, artifact, model="team-x", version=3, ruling="1.01 times that of version 2")

    assert "load_model('models:/team-x/3')" in text
    assert "@champion" not in text
    assert "did not become champion: 1.01 times that of version 2." in text


def test_readme_of_a_miss_says_where_mlflow_has_it(tmp_path: Path, artifact: Artifact) -> None:
    """Nothing is registered, so that no models:/ address is named; the run has the files."""
    text = _logged(fake_result(Status.NO_FIT), tmp_path, artifact)

    assert "models:/" not in text
    assert "run `abc` has these files, under `nearest`" in text


@pytest.mark.parametrize(("versions", "said"), [((4,), "models:/team-x/4"), ((), "under `fallbacks/1`")])
def test_readme_of_a_fallback_follows_what_became_of_it(
    tmp_path: Path, artifact: Artifact, versions: tuple[int, ...], said: str
) -> None:
    """A rung below is a version where its winner became champion, and only then."""
    result = fake_result()
    assert result.best is not None
    result = replace(result, fallbacks=(Fallback(result.best, verified=True, reason="faster"),))
    written = write_outputs(result, tmp_path, artifact, fallbacks=[artifact])
    ref = MlflowRef("sqlite:///mlruns/mlflow.db", "fake-study", "abc", "team-x", 3, versions, champion=bool(versions))

    write_logged(replace(written, mlflow=ref), tmp_path)

    text = (tmp_path / "fallbacks" / "1" / "README.md").read_text()
    assert said in text
    assert ("models:/team-x@fallback-1" in text) is bool(versions)


def test_readme_of_a_miss_does_not_praise_it(tmp_path: Path, artifact: Artifact) -> None:
    """Outside the budget the README says so and names no champion."""
    write_outputs(fake_result(Status.NO_FIT), tmp_path, artifact)

    text = (tmp_path / "nearest" / "README.md").read_text()
    assert "does not keep the budget" in text
    assert "champion" not in text


@pytest.mark.parametrize(
    ("latency_ms", "said"),
    [(0.9, "**it does not keep the budget**"), (0.7, "could not be told, see the limits below"), (0.3, "not measured")],
    ids=["out", "undecided", "in"],
)
def test_readme_of_an_undecided_study_says_what_was_found_of_the_candidate(
    tmp_path: Path, artifact: Artifact, latency_ms: float, said: str
) -> None:
    """The nearest one may be certainly out, where another could not be measured again."""
    result = fake_result(Status.UNDECIDED, artifact=artifact)
    assert result.nearest is not None
    verdict = FAKE_BUDGET.judge(fake_measured(latency_ms=latency_ms))

    write_outputs(replace(result, nearest=replace(result.nearest, verdict=verdict)), tmp_path, artifact)

    text = (tmp_path / "nearest" / "README.md").read_text()
    assert said in text
    assert "noise was too large" not in text


def test_readme_python_lines_compile_and_run(
    tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The onnxruntime lines are code that runs, not prose."""
    text = _logged(fake_result(), tmp_path, artifact, model="fake-study", version=2, champion=True)
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    monkeypatch.chdir(tmp_path / "best")
    names = dict(models.samples(models.cnn(), 3))

    for block in blocks:
        compile(block, "README", "exec")
    exec(blocks[1], names)

    assert names["outputs"][0].shape == (3, 4)


def test_trials_csv_has_one_line_a_trial(tmp_path: Path, artifact: Artifact) -> None:
    """A spreadsheet sees numbers, verdicts and failures in columns."""
    write_outputs(fake_result(), tmp_path, artifact)

    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete", "complete", "failed"]
    assert float(rows[1]["latency_p50_ms_ratio"]) == pytest.approx(0.4)
    assert rows[1]["verdict"] == "in"
    assert rows[2]["failure"] == "build_error"
    assert rows[0]["energy_mj"] == ""


def test_write_result_updates_the_reference_alone(tmp_path: Path, artifact: Artifact) -> None:
    """After logging to MLflow the result is written again with the run it is in."""
    written = write_outputs(fake_result(), tmp_path, artifact)
    known = replace(written, mlflow=MlflowRef("sqlite:///mlruns/mlflow.db", "fake-study", "abc", "fake-study", 2))

    write_result(known, tmp_path)

    assert StudyResult.load(tmp_path) == known


def test_non_finite_figures_give_valid_json_everywhere(tmp_path: Path, artifact: Artifact) -> None:
    """No NaN reaches a file that other programs parse."""
    result = fake_result()
    assert result.best is not None
    odd = {**result.best.measured, "latency_p99_ms": Measurement("latency_p99_ms", 1.0, 0.5, float("inf"), 40)}
    result = replace(result, best=replace(result.best, measured=odd), environment={"noise": float("nan")})

    write_outputs(result, tmp_path, artifact)

    for name in ("result.json", "best/variant.json"):
        text = (tmp_path / name).read_text()
        assert "NaN" not in text
        assert "Infinity" not in text


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither the folder nor a probe file is there afterwards."""
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", [".", "deeper/still"])
def test_check_writable_names_the_file_in_the_way(tmp_path: Path, below: str) -> None:
    """A file where the folder, or one above it, should be is bad input."""
    (tmp_path / "taken").write_text("mine")

    with pytest.raises(BadInput, match="taken"):
        check_writable(tmp_path / "taken" / below)

    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_check_writable_refuses_a_folder_without_permission(tmp_path: Path) -> None:
    """A read-only folder is bad input, not a failure at the end of the search."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)

    with pytest.raises(BadInput, match="can't be written"):
        check_writable(locked / "out")
