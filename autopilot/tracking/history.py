"""The search over time, as metrics of the parent run: one point a trial, its number is the step. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autopilot.budget import Judgement
from autopilot.profile import Measurement
from autopilot.result import TrialRecord, TrialState

# Always part of a point, so that it tells which trials a run has points of.
MARKER = "across_trials/in_budget"


@dataclass(frozen=True, slots=True)
class Goal:
    """An axis that is to be made as good as possible."""

    axis: str
    maximize: bool = False

    def better(self, a: Measurement, b: Measurement | None) -> bool:
        """Whether ``a`` is better than ``b``: by ratios to the baseline where both have one, which carry no drift."""
        if b is None:
            return True
        both = a.ratio is not None and b.ratio is not None
        first, second = (m.ratio.value if both and m.ratio else _value(m) for m in (a, b))
        return first > second if self.maximize else first < second


@dataclass(slots=True)
class Course:
    """What a search has come to, trial after trial: records go in by number, without gaps; a point comes out of each.

    A point holds, an objective: ``across_trials/AXIS`` of that trial and ``across_trials/best_AXIS``, the best in
    budget so far (none before the first one in budget); and the numbers so far of trials in budget
    (``across_trials/in_budget``), of failed ones (``across_trials/failed``) and the seconds that trials took
    (``across_trials/seconds``). Figures are those of the search; the finalists' later, better ones are ``best/AXIS``.

    MLflow draws the charts of ``across_trials/`` first: it sorts its sections by name.
    """

    goals: tuple[Goal, ...]
    next: int = 0
    _waiting: dict[int, TrialRecord] = field(default_factory=dict)
    _best: dict[str, Measurement] = field(default_factory=dict)
    _in_budget: int = 0
    _failed: int = 0
    _seconds: float = 0.0

    def add(self, records: Iterable[TrialRecord]) -> dict[int, Mapping[str, float]]:
        """Points that ``records`` complete, by trial number; a record whose predecessors are missing waits for them."""
        self._waiting |= {r.number: r for r in records if r.number >= self.next}
        points: dict[int, Mapping[str, float]] = {}
        while (record := self._waiting.pop(self.next, None)) is not None:
            points[self.next] = self._point(record)
            self.next += 1
        return points

    def _point(self, record: TrialRecord) -> dict[str, float]:
        holds = record.state is TrialState.COMPLETE and record.verdict is not None
        holds = holds and record.verdict is not None and record.verdict.overall is Judgement.IN
        self._in_budget += holds
        self._failed += record.state is TrialState.FAILED
        self._seconds += sum(s for stage, s in record.seconds.items() if not stage.endswith("_saved"))
        point = {
            MARKER: float(self._in_budget),
            "across_trials/failed": float(self._failed),
            "across_trials/seconds": self._seconds,
        }
        for goal in self.goals:
            seen = record.measured.get(goal.axis)
            if seen is not None and math.isfinite(_value(seen)):
                point[f"across_trials/{goal.axis}"] = _value(seen)
                if holds and goal.better(seen, self._best.get(goal.axis)):
                    self._best[goal.axis] = seen
            if goal.axis in self._best:
                point[f"across_trials/best_{goal.axis}"] = _value(self._best[goal.axis])
        return point


def _value(measured: Measurement) -> float:
    return math.nan if measured.value is None else measured.value
