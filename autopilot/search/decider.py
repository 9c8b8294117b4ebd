"""When a latency pass has seen enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from autopilot.budget import Budget, Judgement
from autopilot.profile import Interval, LatencyReading, Measurement
from autopilot.search.outcome import Effort
from autopilot.stats import early_stretch

# Fewer blocks tell too little of how alike neighbours are: a correlation of ten figures is a guess.
LEAST_BLOCKS = 20

Summarise = Callable[[LatencyReading, LatencyReading | None], Mapping[str, Measurement]]


class Decider:
    """True once every latency limit is decided and the objective's ratio is sure enough.

    While screening, one limit certainly violated is enough. A limit too close to call is measured
    to the cap. Looking again and again finds a lucky moment, so an interval must clear its bound by
    more the earlier it is (``stats.early_stretch``), and the look after it must agree: that takes a
    quarter more time, and what was luck is then gone. Verdicts are given on the plain intervals of all
    that was read. One Decider serves one pass.
    """

    def __init__(self, summarise: Summarise, budget: Budget, objective: str, effort: Effort) -> None:
        self._summarise = summarise
        self._budget = budget
        self._objective = objective
        self._effort = effort
        self._was_decided = False

    def __call__(self, reading: LatencyReading, beside: LatencyReading | None) -> bool:
        if reading.block_wall_s.size < LEAST_BLOCKS:
            return False
        before, self._was_decided = self._was_decided, self._is_decided(reading, beside)
        return before and self._was_decided

    def _is_decided(self, reading: LatencyReading, beside: LatencyReading | None) -> bool:
        measured = self._summarise(reading, beside)
        spent_s = float(reading.block_wall_s.sum()) + (float(beside.block_wall_s.sum()) if beside else 0.0)
        stretch = early_stretch(spent_s / self._effort.cap_s)
        judged = [
            limit.judge(stretched(measured[limit.axis], stretch))
            for limit in self._budget.limits
            if limit.axis in measured
        ]
        if self._effort.ends_early and Judgement.OUT in judged:
            return True
        if Judgement.UNDECIDED in judged:
            return False
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


def stretched(measured: Measurement, stretch: float) -> Measurement:
    """``measured`` with both its intervals ``stretch`` times as wide."""
    value, low, high, ratio = measured.value, measured.low, measured.high, measured.ratio
    if ratio is not None:
        ratio = Interval(
            ratio.value, _further(ratio.value, ratio.low, stretch), _further(ratio.value, ratio.high, stretch)
        )
    if value is None or low is None or high is None:
        return replace(measured, ratio=ratio)
    return replace(measured, low=_further(value, low, stretch), high=_further(value, high, stretch), ratio=ratio)


def _further(value: float, bound: float, stretch: float) -> float:
    return value + stretch * (bound - value)
