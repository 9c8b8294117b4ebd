"""How variants compare on what the spec asks to make as good as possible."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autopilot.profile import Interval, Measurement
from autopilot.result import TrialRecord, speed_axis


@dataclass(frozen=True, slots=True)
class Ranking:
    """One objective, or several: ``further`` are those after the first, in the spec's order."""

    axis: str
    maximize: bool
    further: tuple[Ranking, ...] = ()

    @property
    def goals(self) -> tuple[Ranking, ...]:
        """Every objective by itself."""
        return (replace(self, further=()), *self.further)

    @property
    def axes(self) -> tuple[str, ...]:
        """The objectives' axes."""
        return tuple(goal.axis for goal in self.goals)

    @property
    def speed(self) -> Ranking:
        """How fast variants are: the first objective that is a time or a rate, else the median latency."""
        axis = speed_axis(self.axes)
        return next((goal for goal in self.goals if goal.axis == axis), Ranking(axis, maximize=False))

    def figures(self, measured: Measurement | None) -> Interval:
        """Value and interval, as a ratio to the baseline where there is one; smaller is better."""
        if measured is None or measured.value is None:
            return Interval(math.inf, math.inf, math.inf)
        low = measured.value if measured.low is None else measured.low
        high = measured.value if measured.high is None else measured.high
        found = measured.ratio or Interval(measured.value, low, high)
        return Interval(-found.value, -found.high, -found.low) if self.maximize else found

    def seen(self, measured: Mapping[str, Measurement]) -> Interval:
        """The first objective's figures in what was ``measured`` of a variant; smaller is better.

        Of ``quality`` the loss against the baseline: the same order, and its interval is that of paired samples.
        """
        drop = measured.get("quality_drop")
        if self.axis == "quality" and drop is not None and drop.value is not None:
            return Ranking("quality_drop", maximize=False).figures(drop)
        return self.figures(measured.get(self.axis))

    def of(self, record: TrialRecord) -> Interval:
        return self.seen(record.measured)

    def all_seen(self, measured: Mapping[str, Measurement]) -> tuple[Interval, ...]:
        """Every objective's figures, in the spec's order."""
        return tuple(goal.seen(measured) for goal in self.goals)

    def told(self, record: TrialRecord) -> tuple[float, ...]:
        """What a sampler is told of a trial: a figure an objective, in the objective's own direction."""
        return tuple(goal.of(record).value * (-1 if goal.maximize else 1) for goal in self.goals)

    def simplicity(self, record: TrialRecord) -> tuple[int, int, int]:
        """Fewer techniques, then a smaller artifact, then the earlier trial."""
        size = record.artifact.size_bytes if record.artifact else 0
        return len(record.variant.recipe.steps), size, record.number
