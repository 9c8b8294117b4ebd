"""Comparing two served models: when it ends and how often it is wrong, on simulated rounds."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import pytest

from autopilot.bench.compare import LEAST_ROUNDS, MOST_ROUNDS, Comparison, Round, Standing, TakeRound, in_rounds
from autopilot.profile import Interval

BETWEEN, WITHIN = 0.004, 0.002


def simulated(rng: np.random.Generator, ratio: float, between: float = BETWEEN) -> TakeRound:
    """Rounds of fresh processes that differ by ``between``, each read to ``WITHIN``."""

    def take(number: int) -> Round:
        centre = math.log(ratio) + between * rng.standard_normal() + WITHIN * rng.standard_normal()
        return Round(math.exp(centre), (100, 90))

    return take


def compared(rng: np.random.Generator, ratio: float, **more: float) -> Comparison:
    tick = count()
    return in_rounds(simulated(rng, ratio), precision=more.get("precision", 0.003), cap_s=1e6, clock=lambda: next(tick))


def test_equal_models_tie_however_often_is_looked() -> None:
    """Of 1,500 comparisons that go on for long, 5% see a difference, give or take chance."""
    rng = np.random.default_rng(1)
    found = [compared(rng, 1.0, precision=0.001) for _ in range(1500)]

    assert sum(f.verdict is not Standing.TIE for f in found) / len(found) <= 0.06
    assert max(f.rounds for f in found) == MOST_ROUNDS


@pytest.mark.parametrize(("ratio", "verdict"), [(1.05, Standing.SLOWER), (1 / 1.05, Standing.FASTER)])
def test_five_percent_are_found_at_once_and_measured_right(ratio: float, verdict: Standing) -> None:
    """In at least 95% of 300 comparisons, within few rounds, to two points; bounds hold the truth as often."""
    rng = np.random.default_rng(2)
    found = [compared(rng, ratio) for _ in range(300)]

    assert sum(f.verdict is verdict and abs(f.ratio.value / ratio - 1) <= 0.02 for f in found) >= 285
    assert sum(f.ratio.low <= ratio <= f.ratio.high for f in found) >= 285
    assert np.median([f.rounds for f in found]) == LEAST_ROUNDS


def test_precise_tie_ends_early() -> None:
    """Two equal models aren't compared for ever once the ratio is known well enough."""
    found = compared(np.random.default_rng(3), 1.0, precision=0.02)

    assert found.verdict is Standing.TIE
    assert found.rounds == LEAST_ROUNDS


def test_time_ends_it_after_the_least_rounds() -> None:
    """A cap that is too short for another round ends the comparison, never before the least rounds."""
    tick = count(step=10)
    rng = np.random.default_rng(4)
    found = in_rounds(simulated(rng, 1.0, 0.05), precision=1e-6, cap_s=75.0, clock=lambda: float(next(tick)))

    assert found.rounds == 7
    assert found.requests == (700, 630)
    found = in_rounds(simulated(rng, 1.0, 0.05), precision=1e-6, cap_s=0.0, clock=lambda: float(next(tick)))
    assert found.rounds == LEAST_ROUNDS


@pytest.mark.parametrize("rounds", [LEAST_ROUNDS - 1, MOST_ROUNDS + 1])
def test_too_few_or_too_many_rounds_are_refused(rounds: int) -> None:
    """Three pairs of processes say nothing of their spread."""
    with pytest.raises(ValueError, match="rounds"):
        in_rounds(simulated(np.random.default_rng(0), 1.0), precision=0.01, cap_s=1.0, rounds=rounds)


def test_comparison_is_json() -> None:
    """For scripts: the verdict by name, the ratio with its bounds."""
    found = Comparison(Interval(0.9, 0.88, 0.92), (10, 12), 4, 3.5)

    assert found.to_json() == {
        "verdict": "faster",
        "ratio": {"value": 0.9, "low": 0.88, "high": 0.92},
        "requests": [10, 12],
        "rounds": 4,
        "seconds": 3.5,
    }
