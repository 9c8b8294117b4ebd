"""From the numbers of a quality pass to its reading: once when it is read, and again from what was kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autopilot.contracts import Metric
from autopilot.errors import DataError
from autopilot.profile import Floats, Interval, QualityReading, RawScores, ScoreKind
from autopilot.scoring.intervals import mcnemar, mean_interval, percentile_of, resampled_sums, tango, unseen, wilson
from autopilot.scoring.kinds import SumMetric

SUM_RESAMPLES, MIN_RESAMPLES = 2000, 200
# A resample costs about as much as there are output values: this keeps cheap metrics below a second.
RESAMPLED_VALUES = 20_000_000
# With fewer defined resamples than this their 2.5% quantile is one of the extremes.
_FEWEST = 25

_Read = tuple[Interval, float, Interval, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was scored: the metric's name, the split's, how many samples it has."""

    metric: str
    split: str
    n: int


def interpret(raw: RawScores, asked: Asked, metric: Metric | None, whole: tuple[float, float]) -> QualityReading:
    """The reading that follows from ``raw``; deterministic, so that it can be computed again.

    ``metric`` is asked only how to combine PARTS. ``whole``: the scores of candidate and baseline on all samples.

    Raises:
        DataError: the metric is undefined on most resamples.
    """
    rng = np.random.default_rng(raw.seed)
    if raw.kind is ScoreKind.VALUES:
        value, base, drop, how = _of_values(raw, rng)
    else:
        value, base, drop, how = _of_scores(raw, asked, metric, whole, rng)
    if raw.identical:
        drop, how = Interval(0.0, 0.0, 0.0), "outputs identical to the baseline's"
    return QualityReading(asked.metric, asked.split, asked.n, value, base, drop, how, raw)


def recompute(reading: QualityReading, metric: Metric | None) -> QualityReading:
    """``reading`` computed again from its raw scores; as it is where none were kept.

    Of RESAMPLED scores the intervals follow; the two scores on all samples are taken as they were read.
    ``metric``: the one of the reading's name, None where there is none any more.

    Raises:
        DataError: the scores are summands, and the metric that combines them is not here.
    """
    raw = reading.raw
    if raw is None:
        return reading
    whole = reading.score.value, reading.baseline
    if raw.kind is ScoreKind.PARTS and isinstance(metric, SumMetric) and metric.combine is not None:
        mine, theirs = metric.combine(np.stack([raw.candidate.sum(axis=0), raw.baseline.sum(axis=0)]))
        whole = float(mine), float(theirs)
    return interpret(raw, Asked(reading.metric, reading.split, reading.n), metric, whole)


def summed(metric: SumMetric, mine: Floats, theirs: Floats, rng: np.random.Generator) -> Floats:
    """Bootstrapped (candidate, baseline) scores, shape (r, 2), from the summands of each sample, (n, k) both."""
    assert metric.combine is not None
    resamples = int(np.clip(RESAMPLED_VALUES // len(mine), MIN_RESAMPLES, SUM_RESAMPLES))
    sums = resampled_sums(np.hstack([mine, theirs]), resamples, rng)
    k = mine.shape[1]
    scores = np.stack([metric.combine(sums[:, :k]), metric.combine(sums[:, k:])], axis=1)
    return scores[np.isfinite(scores).all(axis=1)]


def _of_values(raw: RawScores, rng: np.random.Generator) -> _Read:
    mine, theirs = raw.candidate, raw.baseline
    n, base = len(mine), float(theirs.mean())
    loss = theirs - mine if raw.higher_is_better else mine - theirs
    binary = bool(np.isin(mine, (0.0, 1.0)).all() and np.isin(theirs, (0.0, 1.0)).all())
    if binary and raw.sample_range is not None:
        losses, gains = int((loss > 0).sum()), int((loss < 0).sum())
        how = f"paired, Tango score interval; McNemar's exact p {mcnemar(losses, gains):.2g}"
        how += f" ({losses} lost, {gains} gained)"
        return wilson(int(mine.sum()), n), base, tango(losses, gains, n), how
    drop = mean_interval(loss, rng)
    if raw.sample_range is not None and not loss.any():
        low, high = raw.sample_range
        drop = _widened(drop, (high - low) * unseen(n))
    return mean_interval(mine, rng), base, drop, "paired t and BCa bootstrap"


def _of_scores(
    raw: RawScores, asked: Asked, metric: Metric | None, whole: tuple[float, float], rng: np.random.Generator
) -> _Read:
    value, base = whole
    if raw.kind is ScoreKind.PARTS:
        if not isinstance(metric, SumMetric):
            raise DataError(f"the metric {asked.metric} is no sum over samples in this version.")
        scores = summed(metric, raw.candidate, raw.baseline, rng)
    else:
        scores = np.stack([raw.candidate, raw.baseline], axis=1)
    if len(scores) < _FEWEST:
        raise DataError(
            f"the metric {asked.metric} is undefined on most random subsets of these {asked.n} samples.",
            "Give more samples of the rare class.",
        )
    sign = 1.0 if raw.higher_is_better else -1.0
    drops = sign * (scores[:, 1] - scores[:, 0])
    drop = percentile_of(drops, sign * (base - value))
    if not drops.any():  # no resample shows a change: one that n samples may have missed is still possible
        drop = _widened(drop, unseen(asked.n) * max(1.0, abs(base)))
    return percentile_of(scores[:, 0], value), base, drop, f"paired bootstrap over samples, {len(scores)} resamples"


def _widened(interval: Interval, half: float) -> Interval:
    return Interval(interval.value, min(interval.low, -half), max(interval.high, half))
