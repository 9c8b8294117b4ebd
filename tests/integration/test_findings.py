"""What a study finds besides its winner, on small real ones: ways out, a front, fallbacks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import autopilot as package
from autopilot.artifact import Artifact
from autopilot.outputs import write_outputs
from autopilot.result import Fallback, MlflowRef, StudyResult
from autopilot.testing import fake_candidate, fake_measured, fake_result, fake_trial, fake_variant
from autopilot.tracking import Store, Tracker
from tests import models
from tests.integration.run_support import UNTIMED, hurry, in_process, result_of, write_study

pytestmark = pytest.mark.integration


def relaxed(spec: Path, way: dict[str, Any], **changes: Any) -> Path:
    """``spec`` with one limit as the result says it would have to be."""
    raw = yaml.safe_load(spec.read_text())
    bound = way["needed"]["text"][3:]
    raw["budget"][way["axis"]] = bound if "%" in bound else float(bound)
    path = spec.with_name("relaxed.yaml")
    path.write_text(yaml.safe_dump(raw | changes, sort_keys=False))
    return path


def test_relaxation_that_a_study_names_makes_it_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 3, one limit changed as told, exit 0: of a size, so that no clock decides."""
    hurry(monkeypatch)
    spec = write_study(tmp_path, budget={"size_mb": 0.0001, "quality_drop": 0.9}, objective="size_mb")

    first = in_process("run", "spec.yaml", cwd=tmp_path)
    assert first.returncode == 3, first.stderr
    found = result_of(tmp_path / "runs" / "small")
    way = found["relaxations"][0]
    assert (way["axis"], way["direction"], way["verified"]) == ("size_mb", "raise", True)
    assert [b["axis"] for b in found["binding"]] == ["size_mb"]
    assert "would admit trial" in " ".join(first.stdout.split())
    assert found["fallbacks"] == found["front"] == []

    second = in_process("run", relaxed(spec, way, name="relaxed").name, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert result_of(tmp_path / "runs" / "relaxed")["best"]["sha256"] is not None


def test_study_of_several_objectives_ends_with_a_verified_front(tmp_path: Path) -> None:
    """Every member with figures of all objectives; the winner among them; tables and files know of it."""
    write_study(tmp_path, **UNTIMED | {"objective": ["latency_p50_ms", "quality", "size_mb"]})

    done = in_process("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "small"
    found = result_of(out)
    assert found["objective"] == ["latency_p50_ms", "quality", "size_mb"]
    assert [m["id"] for m in found["front"]] == found["pareto"]
    assert found["best"]["id"] in found["pareto"]
    for member in found["front"]:
        assert {"latency_p50_ms", "quality", "size_mb", "quality_drop"} == set(member["measured"])
        assert {"value", "low", "high"} <= set(member["measured"]["latency_p50_ms"])
    assert any(m["verified"] for m in found["front"])
    assert "on the front" in " ".join(done.stdout.split())
    assert StudyResult.load(out).to_json() == found
    assert package.Study.load(out).recomputed().agree
    shown = in_process("show", "runs/small", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "place" in shown.stdout


# ---- fallbacks in MLflow ----------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's project folder with a tracking store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def study(project: Path, rungs: int, *, seed: int) -> tuple[MlflowRef, StudyResult]:
    """A study with a ladder of ``rungs``, written to disk and to MLflow."""
    artifacts = []
    for i in range(rungs + 1):
        model = models.cnn()
        model.doc_string = f"seed {seed} rung {i}"
        artifacts.append(Artifact.of([models.write(model, project / f"model{seed}-{i}.onnx")]))
    ladder = []
    for i in range(rungs):
        trial = fake_trial(
            3 + i,
            fake_variant("static_int8", per_channel=False, rung=i),
            fake_measured(latency_ms=0.3 / (i + 1), drop=0.03 * (i + 1)),
        )
        ladder.append(Fallback(fake_candidate(trial), verified=i == 0, reason=f"rung {i + 1}"))
    plain = fake_result(artifact=artifacts[0])
    whole = StudyResult.from_json(plain.to_json() | {"fallbacks": [f.to_json() for f in ladder]})
    out = project / "runs" / f"study-{seed}"
    result = write_outputs(whole, out, artifacts[0], fallbacks=artifacts[1:])
    tracker = Tracker.start(result.name, spec_text="name: x\n", budget=result.budget, environment={})
    return tracker.finish(result, out, out / "best"), result


def test_fallbacks_are_registered_under_their_aliases_and_answer(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """models:/NAME@fallback-N is that rung's own file; a shorter ladder takes the stale aliases away."""
    import mlflow

    ref, result = study(project, 2, seed=1)
    client = Store.current().client()
    aliases = dict(client.get_registered_model(result.registered_name).aliases)

    assert ref.fallbacks == (int(aliases["fallback-1"]), int(aliases["fallback-2"]))
    assert int(aliases["champion"]) == ref.version
    for place, rung in enumerate(result.fallbacks, 1):
        version = client.get_model_version_by_alias(result.registered_name, f"fallback-{place}")
        bundle = project / "runs" / "study-1" / "fallbacks" / str(place)
        assert (
            version.tags["sha256"]
            == rung.candidate.sha256
            == json.loads((bundle / "variant.json").read_text())["sha256"]
        )
        assert version.tags["status"] == f"fallback-{place}"
        assert rung.candidate.artifact == f"fallbacks/{place}/model.onnx"
        feed = models.samples(models.cnn(), 2)
        # The variable and not set_tracking_uri, which would set it for all tests that follow.
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlruns' / 'mlflow.db'}")
        answer = mlflow.pyfunc.load_model(f"models:/{result.registered_name}@fallback-{place}").predict(feed)
        expected = package.load(bundle)(feed)
        assert all(np.array_equal(answer[name], expected[name]) for name in expected)

    again, _ = study(project, 1, seed=2)
    after = dict(client.get_registered_model(result.registered_name).aliases)
    assert set(after) == {"champion", "previous", "fallback-1"}
    assert int(after["fallback-1"]) == again.fallbacks[0] > ref.fallbacks[0]


def test_fallbacks_of_an_earlier_run_leave_the_folder(project: Path) -> None:
    """What lies in fallbacks/ is this result's."""
    _, result = study(project, 2, seed=3)
    out = project / "runs" / "study-3"
    assert sorted(os.listdir(out / "fallbacks")) == ["1", "2"]
    artifact = Artifact.of([out / "best" / "model.onnx"])
    copy = project / "model.onnx"
    copy.write_bytes(artifact.path.read_bytes())

    write_outputs(fake_result(), out, Artifact.of([copy]))

    assert not (out / "fallbacks").exists()
    assert result.fallbacks[1].verified is False
