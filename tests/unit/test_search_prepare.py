"""From a Problem to a Setup: batch sizes, threads, limits and what a resume compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot.artifact import Artifact
from autopilot.budget import Budget, Limit
from autopilot.errors import SpecError
from autopilot.model import ModelInfo
from autopilot.recipe import Deployment, Recipe
from autopilot.search import prepare as module
from autopilot.search.prepare import BATCHES, Setup, child_limits, identity, prepare
from autopilot.spec import SearchSpec, TargetSpec, Traffic
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
        ("offline", None, True, True, BATCHES["offline"]),
        ("offline", None, True, False, (1,)),
        ("offline", 8, True, True, (8,)),
        ("single_stream", 8, True, True, (8,)),
        ("single_stream", 80, False, False, (1,)),
        ("offline", 80, False, False, (1,)),
        ("server", None, True, True, BATCHES["server"]),
        ("server", None, True, False, (1,)),
        ("server", 8, True, True, (8,)),
        ("server", 80, False, False, (1,)),
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


@pytest.mark.parametrize(
    ("own", "dynamic", "batch", "server", "expected"),
    [
        (None, False, 1, False, (1,)),
        (None, False, 16, False, ()),
        (None, False, 16, True, (1,)),
        (None, False, 2, True, (1, 2)),
        (None, True, 16, True, (1,)),
        (None, True, 1, False, ()),
        (8, False, 8, True, ()),
    ],
)
def test_sizes_that_are_served_but_not_scored_are_compared(
    tmp_path: Path, *, own: int | None, dynamic: bool, batch: int, server: bool, expected: tuple[int, ...]
) -> None:
    """A score at 4 or 16 samples a run says nothing of single ones where a runtime compiles for each size."""
    setup = setup_of(tmp_path, info=info_of(own), scenario="server" if server else "offline")
    info = replace(info_of(own), dynamic_quantized=dynamic)

    assert setup.compared_sizes(Deployment("cpu", 1, batch), info) == expected


@pytest.mark.parametrize("scenario", ["offline", "server"])
def test_nothing_is_compared_where_the_model_as_given_answers_otherwise_in_batches(
    tmp_path: Path, scenario: str
) -> None:
    """A model that samples never gives the same twice; a server runs it one by one, so that it has one size."""
    setup = replace(setup_of(tmp_path, scenario=scenario), batching=False)

    assert setup.compared_sizes(Deployment("cpu", 1, 8), info_of(None)) == ()
    assert setup.batches == ((1,) if scenario == "server" else None)


def test_scoring_takes_single_samples_where_batching_changes_answers(tmp_path: Path) -> None:
    """A recurrent state that leaks between samples must not be scored in batches."""
    setup = replace(setup_of(tmp_path), batching=False)

    assert setup.scoring_batch(Deployment("cpu", 1, 1), info_of()) == 1


def test_more_threads_than_cores_are_not_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's cores are used, and that is said."""
    setup, watcher = prepared(tmp_path, monkeypatch, target=TargetSpec(threads=4096))

    assert max(setup.space.threads) == setup.target.cores
    assert any("4096" in note for note in watcher.notes)


def test_instances_and_delays_are_searched_in_server_traffic_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere no request waits for another one."""
    served, _ = prepared(tmp_path, monkeypatch, scenario="server", target=TargetSpec(threads=1))
    single, _ = prepared(tmp_path, monkeypatch)

    assert len(served.space.max_delays_ms) > 1
    assert single.space.max_delays_ms == (0.0,)
    assert single.space.instances == (1,)


def test_throughput_above_a_traces_own_rate_is_refused(tmp_path: Path) -> None:
    """It can't be met by any variant; two requests a second come."""
    (tmp_path / "trace.csv").write_text("0\n0.5\n1.0\n")
    budget = Budget((Limit("throughput_rps", 5.0, upper=False),))
    like = setup_of(tmp_path, budget=budget)
    problem = replace(like.problem, traffic=Traffic("server", None, str(tmp_path / "trace.csv")))

    with pytest.raises(SpecError, match="only 2 requests a second"):
        prepare(problem, tmp_path, Recorder())


def test_another_trace_is_another_question(tmp_path: Path) -> None:
    """A resume must find the same requests."""
    for name in ("model.onnx", "valid.npz", "space.yaml", "trace.csv"):
        (tmp_path / name).write_text(name)
    problem = setup_of(tmp_path).problem
    problem = replace(problem, traffic=Traffic("server", 5.0, str(tmp_path / "trace.csv")))
    before = identity(problem, [tmp_path / "model.onnx"])
    (tmp_path / "trace.csv").write_text("other")
    after = identity(problem, [tmp_path / "model.onnx"])

    assert [key for key in before if before[key] != after[key]] == ["trace"]


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
