"""Scores against the baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from autopilot.profile.measurement import Floats, Interval


class ScoreKind(StrEnum):
    """What the numbers kept of a quality pass are, and so how much of it can be computed again."""

    VALUES = "values"  # one figure a sample, whose mean is the score: everything follows from them
    PARTS = "parts"  # the summands of each sample, from whose sums the score follows: everything follows
    RESAMPLED = "resampled"  # scores of resampled data: the intervals follow, the two scores are as they were read


@dataclass(frozen=True, slots=True)
class RawScores:
    """The numbers that a QualityReading was computed from.

    candidate, baseline: float64, of the same samples in the same order: shape (n,) for VALUES, (n, k) for
        PARTS, (resamples,) for RESAMPLED.
    sample_range: the least and the largest value a sample can have; None where there is no bound.
    identical: both models gave the same outputs, so that the drop is 0 whatever else is here.
    seed: of the bootstrap.
    """

    kind: ScoreKind
    candidate: Floats
    baseline: Floats
    higher_is_better: bool
    sample_range: tuple[float, float] | None = None
    identical: bool = False
    seed: int = 0


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
    raw: RawScores | None = field(default=None, repr=False, compare=False)
