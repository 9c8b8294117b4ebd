"""Scores against the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from autopilot.profile.measurement import Interval


@dataclass(frozen=True, slots=True)
class QualityReading:
    """Scores on one split, candidate and baseline on the same samples.

    ``drop`` is the loss in the metric's bad direction (positive = worse), with a paired interval.
    """

    metric: str
    split: str
    n: int
    score: Interval
    baseline: float
    drop: Interval
    how: str
