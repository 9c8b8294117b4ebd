"""From a Problem to a Setup: batch sizes, threads, limits and what a resume compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot.artifact import Artifact
from autopilot.errors import SpecError
from autopilot.model import ModelInfo
from autopilot.recipe import Deployment, Recipe
from autopilot.search import prepare as module
from autopilot.search.prepare import OFFLINE_BATCHES, Setup, child_limits, identity, prepare
from autopilot.spec import SearchSpec, TargetSpec
from tests.unit.search_support import Recorder, artifact_of, info_of, setup_of


def prepared(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    info: ModelInfo | None = None,
    scenario: Any = "single_stream",
    batched: bool = True,
    batching: bool = True,
    target: TargetSpec | None = None,
) -> tuple[Setup, Recorder]:
    """``prepare`` with a model and data that aren't there."""
    like = setup_of(folder, scenario=scenario, info=info, batched=batched)
    problem = replace(like.problem, target=target or like.problem.target)
    (folder / "space.yaml").write_text("techniques: []\n")
    watcher = Recorder()
    monkeypatch.setattr(module, "inspect", lambda path: like.info)
    monkeypatch.setattr(Artifact, "of", lambda files, **more: artifact_of(Recipe()))
    monkeypatch.setattr(module, "prepare_data", lambda *a, **k: like.splits)
    monkeypatch.setattr(module, "probe_batching", lambda *a, **k: batching)
    monkeypatch.setattr(module, "check_metric", lambda setup: None)
    return prepare(problem, folder, watcher), watcher


@pytest.mark.parametrize(
    ("scenario", "batch", "batched", "batching", "expected"),
    [
        ("single_stream", None, True, True, (1,)),
        ("offline", None, True, True, OFFLINE_BATCHES),
        ("offline", None, True, False, (1,)),
        ("offline", 8, True, True, (8,)),
        ("single_stream", 8, True, True, (8,)),
        ("single_stream", 80, False, False, (1,)),
        ("offline", 80, False, False, (1,)),
    ],
)
def test_batches_follow_traffic_and_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    scenario: str,
    batch: int | None,
    batched: bool,
    batching: bool,
    expected: tuple[int, ...],
) -> None:
    """A fixed size is the only one; without a sample dimension the first one is no batch (80 bands)."""
    setup, _ = prepared(
        tmp_path, monkeypatch, info=info_of(batch), scenario=scenario, batched=batched, batching=batching
    )

    assert setup.space.batches == expected
    assert setup.space.default_deployment().batch == expected[0]
    assert setup.batches is None or setup.space.default_deployment().batch in setup.batches


def test_fixed_batch_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of eight samples a run refuses the probe's single ones."""

    def never(*args: Any, **kwargs: Any) -> bool:
        raise AssertionError("probed")

    prepared_once, _ = prepared(tmp_path, monkeypatch)
    monkeypatch.setattr(module, "probe_batching", never)
    setup = replace(prepared_once, info=info_of(8))

    assert not module._batching(setup.info, setup.splits, setup.model, setup.space, setup.limits)


@pytest.mark.parametrize(
    ("own", "batched", "other", "dynamic", "batch", "expected"),
    [
        (None, True, None, False, 1, 4),
        (None, True, None, False, 16, 16),
        (None, True, None, True, 1, 1),
        (8, True, 8, False, 8, 8),
        (8, True, None, False, 8, 8),
        (None, True, 16, False, 16, 16),
        (80, False, 80, False, 1, 1),
    ],
)
def test_scoring_batch_fits_the_model_that_is_scored(
    tmp_path: Path, *, own: int | None, batched: bool, other: int | None, dynamic: bool, batch: int, expected: int
) -> None:
    """Fixed sizes are kept; dynamic quantization is scored as it is served."""
    setup = setup_of(tmp_path, info=info_of(own), batched=batched)
    info = replace(info_of(other), dynamic_quantized=dynamic)

    assert setup.scoring_batch(Deployment("cpu", 1, batch), info) == expected


def test_scoring_takes_single_samples_where_batching_changes_answers(tmp_path: Path) -> None:
    """A recurrent state that leaks between samples must not be scored in batches."""
    setup = replace(setup_of(tmp_path), batching=False)

    assert setup.scoring_batch(Deployment("cpu", 1, 1), info_of()) == 1


def test_more_threads_than_cores_are_not_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's cores are used, and that is said."""
    setup, watcher = prepared(tmp_path, monkeypatch, target=TargetSpec(threads=4096))

    assert max(setup.space.threads) == setup.target.cores
    assert any("4096" in note for note in watcher.notes)


def test_server_traffic_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this version can't measure is no default."""
    with pytest.raises(SpecError, match="single_stream or offline"):
        prepared(tmp_path, monkeypatch, scenario="server")


def test_child_limits_come_from_the_spec(tmp_path: Path) -> None:
    """Memory in MB, time in seconds."""
    setup = setup_of(tmp_path, search=SearchSpec(memory_limit_mb=100, step_timeout_s=7.0))
    limits = child_limits(setup.problem)

    assert (limits.wall_s, limits.memory_bytes) == (7.0, 100_000_000)
    assert child_limits(setup_of(tmp_path).problem).memory_bytes is not None


@pytest.mark.parametrize(
    ("changed", "word"),
    [("model.onnx", "model"), ("weights.bin", "model"), ("valid.npz", "validation data"), ("space.yaml", "space file")],
)
def test_identity_names_the_part_that_changed(tmp_path: Path, changed: str, word: str) -> None:
    """A resume says what is different, external weights included; the same files give the same identity."""
    for name in ("model.onnx", "weights.bin", "valid.npz", "space.yaml"):
        (tmp_path / name).write_text(name)
    problem = setup_of(tmp_path).problem
    files = [tmp_path / "model.onnx", tmp_path / "weights.bin"]
    before = identity(problem, files)
    same = identity(problem, files)
    (tmp_path / changed).write_text("other")
    after = identity(problem, files)

    assert before == same
    assert [key for key in before if before[key] != after[key]] == [word]
