"""When a latency pass has seen enough."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from autopilot.budget import Budget, Judgement, Limit
from autopilot.meters.latency import METER
from autopilot.profile import Interval, LatencyReading, Measurement, Profile
from autopilot.search.decider import LEAST_BLOCKS, Decider
from autopilot.search.outcome import BASELINE, SCREENING, VERIFYING, Effort, cap_s
from autopilot.spec import SearchSpec
from tests.unit.search_support import reading, setup_of

BUDGET = Budget((Limit("latency_p50_ms", 1.0),))


def decided(low: float, high: float, effort: Effort, *, budget: Budget = BUDGET, seconds: float = 0.0) -> bool:
    """Whether a median between ``low`` and ``high`` ms ends the pass after ``seconds``."""
    value = (low + high) / 2
    found = {"latency_p50_ms": Measurement("latency_p50_ms", value, low, high, 9, ratio=Interval(value, low, high))}
    taken = reading(1.0)
    taken = LatencyReading(taken.latency_s, taken.block, taken.block_wall_s * 0 + seconds / 20, taken.block_cpu_s)
    decide = Decider(lambda a, b: found, budget, "latency_p50_ms", effort)
    return not decide(taken, None) and decide(taken, None)  # one look alone never ends a pass


def test_limit_too_close_to_call_is_measured_on() -> None:
    """An interval around the bound decides nothing, however long it took."""
    assert not decided(0.9, 1.1, SCREENING, seconds=100.0)
    assert not decided(0.9, 1.1, VERIFYING, seconds=100.0)


def test_certain_violation_ends_screening_alone() -> None:
    """Verification and the baseline want figures even of what is out."""
    assert decided(1.5, 2.5, SCREENING, seconds=2.0)
    assert not decided(1.5, 2.5, VERIFYING, seconds=2.0)
    assert not decided(1.5, 2.5, BASELINE, seconds=1.0)


def test_objective_is_measured_until_sure_or_for_a_while() -> None:
    """A kept limit is not enough: variants are ranked by the objective."""
    assert not decided(0.4, 0.6, SCREENING, seconds=1.0)
    assert decided(0.497, 0.503, SCREENING, seconds=1.0)
    assert decided(0.4, 0.6, SCREENING, seconds=1.01 * SCREENING.precise_s)


def test_limits_of_other_stages_do_not_hold_the_pass_up() -> None:
    """What latency can't tell is not waited for."""
    budget = Budget((Limit("quality_drop", 0.01), Limit("size_mb", 1.0)))

    assert decided(0.499, 0.501, SCREENING, budget=budget, seconds=1.0)


@pytest.mark.parametrize(
    ("effort", "pair_s", "timeout_s", "expected"),
    [
        (SCREENING, 1.0, 900.0, SCREENING.cap_s),
        (VERIFYING, 0.002, 900.0, VERIFYING.cap_s),
        (VERIFYING, 0.12, 900.0, 1.5 * 368 * 0.12),
        (VERIFYING, 2.0, 900.0, 180.0),
        (VERIFYING, 2.0, 10.0, VERIFYING.cap_s),
    ],
)
def test_slow_models_are_verified_for_longer(
    tmp_path: Path, effort: Effort, pair_s: float, timeout_s: float, expected: float
) -> None:
    """A p99 has no upper bound below 368 requests, so that a fixed cap would leave it undecided for ever."""
    budget = Budget((Limit("latency_p50_ms", 1.0), Limit("latency_p99_ms", 1.0)))

    problem = setup_of(tmp_path, budget=budget, search=SearchSpec(timeout_s=timeout_s)).problem

    assert cap_s(effort, problem, pair_s=pair_s) == pytest.approx(expected)


def test_cap_is_the_specs_without_a_percentile(tmp_path: Path) -> None:
    """Means and rates need no number of requests; a cap below screening's own holds for both."""
    problem = setup_of(tmp_path, budget=Budget((Limit("size_mb", 1.0),)), search=SearchSpec(measure_cap_s=2.0)).problem

    assert cap_s(VERIFYING, problem, pair_s=9.0) == 2.0
    assert cap_s(SCREENING, problem, pair_s=9.0) == 2.0


def test_stopping_asks_for_more_than_the_verdict() -> None:
    """Looking often finds lucky moments: an interval that just clears its bound is looked at again."""
    assert not decided(0.80, 0.99, VERIFYING, seconds=100.0)
    assert decided(0.60, 0.90, VERIFYING, seconds=100.0)


@pytest.mark.parametrize("axis", ["latency_p50_ms", "latency_p95_ms"])
def test_repeated_looks_keep_the_false_alarm_rate(axis: str) -> None:
    """A variant exactly at its bound is called "in" about as rarely as one look with a 95% interval would."""
    share = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95}[axis]
    spread = math.hypot(0.01, 0.1)
    budget = Budget((Limit(axis, 1e3 * math.exp(-7 + spread * NormalDist().inv_cdf(share))),))
    passes = [_simulated_pass(axis, budget, seed) for seed in range(150)]

    assert passes.count(Judgement.IN) <= 8  # of 150; up to 11% of them without the stretch


def _simulated_pass(axis: str, budget: Budget, seed: int) -> Judgement:
    """The verdict of one pass over blocks of 30 requests that drift by 1% and vary by 10%."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(300, dtype=np.int32), 30)
    latency_s = np.exp(-7 + 0.01 * rng.standard_normal(300)[block] + 0.1 * rng.standard_normal(block.size))
    wall_s = np.bincount(block, weights=latency_s)

    def figures(reading: LatencyReading, beside: LatencyReading | None) -> dict[str, Measurement]:
        return {axis: METER.summarise(Profile("v", latency=reading), axis)}

    decide = Decider(figures, budget, "latency_p50_ms", VERIFYING)
    blocks = 10
    while True:
        n = blocks * 30
        taken = LatencyReading(latency_s[:n], block[:n], wall_s[:blocks], wall_s[:blocks])
        if blocks >= 300 or decide(taken, None):
            return budget.judge(figures(taken, None)).overall
        blocks = min(300, round(blocks * 1.25))


def test_limit_that_more_requests_cannot_decide_is_not_waited_for() -> None:
    """All of the interval's width is what processes of one model differ by: the verdict stays undecided."""
    found = {"latency_p50_ms": Measurement("latency_p50_ms", 1.0, 0.95, 1.05, 9, ratio=Interval(1.0, 0.95, 1.05))}

    def ends(floor: float) -> bool:
        decide = Decider(lambda a, b: found, BUDGET, "latency_p50_ms", VERIFYING, floor=floor)
        return [decide(reading(1.0), None) for _ in range(2)][-1]

    assert ends(0.05)
    assert not ends(0.02)
    assert not ends(0.0)


def test_objective_is_sure_when_only_the_processes_differ() -> None:
    """Precision is asked of the requests' own part."""
    found = {"latency_p50_ms": Measurement("latency_p50_ms", 0.5, 0.485, 0.515, 9, ratio=Interval(0.5, 0.485, 0.515))}

    def ends(floor: float) -> bool:
        decide = Decider(lambda a, b: found, BUDGET, "latency_p50_ms", VERIFYING, floor=floor)
        return [decide(reading(0.5, n=4000), None) for _ in range(2)][-1]

    assert ends(0.03)
    assert not ends(0.0)


def test_early_look_asks_for_much_more_than_a_late_one() -> None:
    """An interval that would decide at the end of the time decides nothing at its start."""
    assert decided(0.60, 0.90, VERIFYING, seconds=VERIFYING.cap_s)
    assert not decided(0.60, 0.90, VERIFYING, seconds=0.1 * VERIFYING.cap_s)
    assert decided(0.199, 0.201, VERIFYING, seconds=0.1 * VERIFYING.cap_s)


def test_few_blocks_decide_nothing() -> None:
    """However far the interval is from its bound."""
    found = {"latency_p50_ms": Measurement("latency_p50_ms", 0.1, 0.1, 0.1, 9)}
    whole = reading(0.1)
    few = LatencyReading(whole.latency_s, whole.block, np.full(LEAST_BLOCKS - 1, 1.0), np.full(LEAST_BLOCKS - 1, 1.0))
    decide = Decider(lambda a, b: found, BUDGET, "latency_p50_ms", VERIFYING)

    assert not any(decide(few, None) for _ in range(3))
