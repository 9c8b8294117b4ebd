"""The cold pass: how many fresh processes a verdict on memory takes, and what they are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.bench import launcher
from autopilot.bench.launcher import ColdReading
from autopilot.budget import Budget, Limit
from autopilot.profile import Measurement, Placement
from autopilot.recipe import Deployment, Recipe, Variant
from autopilot.search import cold as module
from autopilot.search.cold import ColdPass, more_starts
from autopilot.search.outcome import Outcome
from tests.unit.search_support import artifact_of, setup_of

LIMIT = Budget((Limit("peak_memory_mb", 100.0),))


def peak(value: float) -> dict[str, Measurement]:
    return {"peak_memory_mb": Measurement("peak_memory_mb", value, value - 0.5, value + 0.5, 1)}


@pytest.mark.parametrize(
    ("value", "done", "more"), [(50.0, 1, 0), (95.0, 1, 2), (105.0, 1, 2), (150.0, 1, 0), (95.0, 5, 0)]
)
def test_further_starts_follow_only_a_near_limit(tmp_path: Path, value: float, done: int, more: int) -> None:
    """Three in all within a tenth of the limit; none where one start decides, or where five were made."""
    problem = setup_of(tmp_path, budget=LIMIT).problem

    assert more_starts(problem, peak(value), done) == more


def test_margin_moves_the_limit_that_is_near(tmp_path: Path) -> None:
    """A limit of 100 with a margin of 20% is judged at 80: near to 82, not to 100."""
    problem = setup_of(tmp_path, budget=Budget((Limit("peak_memory_mb", 100.0, margin=0.2),))).problem

    assert more_starts(problem, peak(82.0), 1) == 2
    assert more_starts(problem, peak(100.0), 1) == 0


def test_relative_limit_is_near_by_the_ratio(tmp_path: Path) -> None:
    """90% of a baseline of 100 MB is near to 92 MB and far from 50 MB."""
    problem = setup_of(tmp_path, budget=Budget((Limit("peak_memory_mb", 0.9, relative=True),))).problem
    fake = Fake([92, 92, 92])
    profile = run_pass(ColdPass(setup_of(tmp_path, budget=problem.budget)), fake, peak(100.0))

    assert len(profile.peak_memory_starts_bytes) == 3


def test_model_memory_near_its_limit_takes_further_starts(tmp_path: Path) -> None:
    """The process takes 92 MB, the model 72 MB of them: a limit of 75 MB on the model is near."""
    setup = setup_of(tmp_path, budget=Budget((Limit("model_memory_mb", 75.0),)))
    profile = run_pass(ColdPass(setup), Fake([92, 93, 91]))

    assert profile.peak_memory_starts_bytes == (92_000_000, 93_000_000, 91_000_000)
    assert profile.peak_memory_bytes == 93_000_000
    assert profile.load_s.size == 3


def test_empty_process_is_started_once_a_shape(tmp_path: Path) -> None:
    """Threads and batch change what the process holds without a model; options don't."""
    fake = Fake([50] * 9)
    cold = ColdPass(setup_of(tmp_path))
    for deployment in (Deployment("cpu", 1), Deployment("cpu", 1), Deployment("cpu", 2), Deployment("cpu", 1, 8)):
        run_pass(cold, fake, deployment=deployment)

    assert [(d.threads, d.batch) for d in fake.empties] == [(1, 1), (2, 1), (1, 8)]


def test_one_start_of_several_is_made_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five starts tell how long one takes; that each size was met is of the one whose memory is read."""
    servers = [Started(n) for n in range(3)]
    waiting = iter([*servers, *servers])
    monkeypatch.setattr(launcher.Server, "start", lambda *a, **k: next(waiting))
    monkeypatch.setattr(launcher, "gpu_memory", lambda pid, placement: (pid, ""))
    monkeypatch.setattr(launcher, "shapes_apart", lambda placement, path: placement)
    asked: list[int] = []

    def start(ready: Any = None) -> ColdReading:
        wanted: dict[str, Any] = {"split": None, "limits": None, "repeats": 3, "ready": ready}
        return launcher.measure_cold(tmp_path, Deployment("cpu"), **wanted)

    served = start(lambda server: asked.append(server.pid))
    plain = start()

    assert asked == [0]
    assert served.load_s.tolist() == plain.load_s.tolist() == [0.0, 1.0, 2.0]
    assert served.warnings == plain.warnings == ("odd 0", "odd 1", "odd 2")
    assert (served.starts_bytes, served.peak_memory_bytes) == ((100,), 100)
    assert (served.resident_memory_bytes, served.gpu_memory_bytes) == (10, 0)
    assert (plain.starts_bytes, plain.peak_memory_bytes) == ((100, 101, 102), 102)
    assert (plain.resident_memory_bytes, plain.gpu_memory_bytes) == (12, 2)


def test_each_start_that_memory_is_read_of_near_its_limit_is_made_ready(tmp_path: Path) -> None:
    """Of processes that were asked for one size alone the spread is another one."""
    fake = Fake([95, 96, 97])
    ready: Any = object()

    run_pass(ColdPass(setup_of(tmp_path, budget=LIMIT), lambda outcome: ready), fake)

    assert fake.ready == [(1, ready)] * 3


class Started:
    """A server that has answered its first requests."""

    def __init__(self, number: int) -> None:
        self.pid, self.load_s, self.placement, self.warnings = number, float(number), Placement(), (f"odd {number}",)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def block(self, n: int) -> None:
        pass

    def peak_memory_bytes(self) -> int:
        return 100 + self.pid

    def resident_memory_bytes(self) -> int:
        return 10 + self.pid


def run_pass(cold: ColdPass, fake: Fake, baseline: Any = None, deployment: Deployment | None = None) -> Any:
    """The profile of a variant whose starts ``fake`` makes up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "measure_cold", fake.measure_cold)
        patch.setattr(module, "measure_empty", fake.measure_empty)
        outcome = Outcome(Variant(Recipe(), deployment or Deployment("cpu")), artifact_of(Recipe()))
        return cold.run(outcome, limits=None, baseline=baseline)[0]  # type: ignore[arg-type]


class Fake:
    """Starts whose high-water marks are given, in MB."""

    def __init__(self, peaks_mb: list[int]) -> None:
        self._peaks = [p * 1_000_000 for p in peaks_mb]
        self.empties: list[Deployment] = []
        self.ready: list[tuple[int, Any]] = []

    def measure_cold(
        self, path: Path, deployment: Deployment, *, repeats: int, ready: Any = None, **_: Any
    ) -> ColdReading:
        self.ready.append((repeats, ready))
        starts = tuple(self._peaks.pop(0) for _ in range(repeats))
        return ColdReading(np.full(repeats, 0.2), max(starts), Placement({"CPUExecutionProvider": 1}), (), starts)

    def measure_empty(self, deployment: Deployment, *_: Any, **__: Any) -> int:
        self.empties.append(deployment)
        return 20_000_000
