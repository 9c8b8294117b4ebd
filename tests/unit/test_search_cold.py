"""The cold pass: how many fresh processes a verdict on memory takes, and what they are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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

    def measure_cold(self, path: Path, deployment: Deployment, *, repeats: int, **_: Any) -> ColdReading:
        starts = tuple(self._peaks.pop(0) for _ in range(repeats))
        return ColdReading(np.full(repeats, 0.2), max(starts), Placement({"CPUExecutionProvider": 1}), (), starts)

    def measure_empty(self, deployment: Deployment, *_: Any, **__: Any) -> int:
        self.empties.append(deployment)
        return 20_000_000
