"""When a latency pass has seen enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from autopilot.budget import Budget, Judgement
from autopilot.profile import Interval, LatencyReading, Measurement
from autopilot.search.outcome import Effort

# Looking again and again finds a lucky moment: with plain 95% intervals a p95 exactly at its bound was
# called "in" in 11% of 250 simulated passes, not in 2.5%. To stop, an interval must clear the bound
# with this many times its width.
STRETCH = 1.5

Summarise = Callable[[LatencyReading, LatencyReading | None], Mapping[str, Measurement]]


class Decider:
    """True once every latency limit is decided and the objective's ratio is sure enough.

    While screening, one limit certainly violated is enough. A limit too close to call is measured
    to the cap. Verdicts are given on the plain intervals of all that was read.
    """

    def __init__(self, summarise: Summarise, budget: Budget, objective: str, effort: Effort) -> None:
        self._summarise = summarise
        self._budget = budget
        self._objective = objective
        self._effort = effort

    def __call__(self, reading: LatencyReading, beside: LatencyReading | None) -> bool:
        measured = self._summarise(reading, beside)
        judged = [
            limit.judge(stretched(measured[limit.axis])) for limit in self._budget.limits if limit.axis in measured
        ]
        if self._effort.ends_early and Judgement.OUT in judged:
            return True
        if Judgement.UNDECIDED in judged:
            return False
        spent_s = float(reading.block_wall_s.sum()) + (float(beside.block_wall_s.sum()) if beside else 0.0)
        return spent_s >= self._effort.precise_s or self._sure(
            measured.get(self._objective) or measured.get("latency_p50_ms")
        )

    def _sure(self, objective: Measurement | None) -> bool:
        if objective is None or objective.value is None:
            return True
        figures = objective.ratio
        if figures is None:
            if objective.low is None or objective.high is None:
                return True
            figures = Interval(objective.value, objective.low, objective.high)
        return (figures.high - figures.low) / 2 <= self._effort.precision * abs(figures.value)


def stretched(measured: Measurement) -> Measurement:
    """``measured`` with both its intervals wider by STRETCH."""
    value, low, high, ratio = measured.value, measured.low, measured.high, measured.ratio
    if ratio is not None:
        ratio = Interval(ratio.value, _further(ratio.value, ratio.low), _further(ratio.value, ratio.high))
    if value is None or low is None or high is None:
        return replace(measured, ratio=ratio)
    return replace(measured, low=_further(value, low), high=_further(value, high), ratio=ratio)


def _further(value: float, bound: float) -> float:
    return value + STRETCH * (bound - value)
