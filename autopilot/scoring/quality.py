"""Scores of a candidate and the baseline on the same samples, with a paired interval on the drop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Metric
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.profile import Floats, Interval, QualityReading
from autopilot.scoring.intervals import bootstrap, mean_interval, percentile_of, resampled_sums, tango, unseen, wilson
from autopilot.scoring.kinds import BoundedMetric, FunctionMetric, SumMetric

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]

MIN_RESAMPLES, MAX_RESAMPLES = 200, 500
SUM_RESAMPLES = 2000
# A resample costs about as much as there are output values: this keeps cheap metrics below a second.
_RESAMPLED_VALUES = 20_000_000
_SOFT_S, _HARD_S, _HARD_RESAMPLES = 1.0, 10.0, 50


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both models' outputs on the same samples, as the metric takes them."""

    metric: Metric
    options: Mapping[str, Any]
    outputs: Array
    baseline: Array
    labels: Array | None
    all_outputs: Outputs
    all_baseline: Outputs

    def score_of(self, *, candidate: bool, index: Any = ...) -> float:
        """One model's score on the samples ``index``; NaN where it is undefined there."""
        outputs = self.outputs if candidate else self.baseline
        labels = self.labels[index] if self.labels is not None else None
        if isinstance(self.metric, FunctionMetric):
            everything = self.all_outputs if candidate else self.all_baseline
            return self.metric.call({k: v[index] for k, v in everything.items()}, labels)
        reference = self.baseline[index] if self.metric.against_baseline else labels
        assert reference is not None
        return float(self.metric.score(outputs[index], reference, self.options))

    def per_sample(self, *, candidate: bool) -> Floats:
        outputs = self.outputs if candidate else self.baseline
        reference = self.baseline if self.metric.against_baseline else self.labels
        assert self.metric.per_sample is not None
        assert reference is not None
        return self.metric.per_sample(outputs, reference, self.options)


def score(
    metric: Metric,
    options: Mapping[str, Any],
    *,
    outputs: Array,
    baseline: Array,
    labels: Array | None,
    split_name: str,
    all_outputs: Outputs | None = None,
    all_baseline: Outputs | None = None,
    same_model: bool = False,
    seed: int = 0,
) -> QualityReading:
    """The candidate's score and its drop against the baseline, with 95% intervals.

    ``outputs``, ``baseline``: the scored output of both, shape (n, ...), same samples.
    ``all_outputs``, ``all_baseline``: every output by name, for user functions (default: the
    scored one as ``output``). ``same_model``: the candidate is the baseline, so the drop is 0.

    The interval on the drop: where each sample is right or wrong, Tango's score interval for paired
    proportions; where the score is a mean of values, a paired t and BCa bootstrap; else a paired
    percentile bootstrap over samples: up to 2,000 resamples where the score follows from sums, at least
    200 elsewhere (50 where a metric is so slow that 200 take over ten seconds).

    Raises:
        DataError: no labels for a metric that needs them, labels that don't fit it, or a user
            function failed.
        VariantFailed: WRONG_NUMERICS, when outputs are NaN, newly infinite, or of another shape.
    """
    check_outputs(outputs, baseline)
    if labels is None and not metric.against_baseline and not isinstance(metric, FunctionMetric):
        raise DataError(f"the metric {metric.name} needs labels and {split_name} has none.", "Set data.label.")
    pair = _Pair(
        metric,
        {**metric.options, **options},
        outputs,
        baseline,
        labels,
        all_outputs if all_outputs is not None else {"output": outputs},
        all_baseline if all_baseline is not None else {"output": baseline},
    )
    reference = baseline if metric.against_baseline else labels
    if reference is not None:
        metric.check(baseline, reference, pair.options)
    rng = np.random.default_rng(seed)
    value, base, drop, how = _by_sample(pair, rng) if metric.per_sample is not None else _by_bootstrap(pair, rng)
    if same_model or _identical(outputs, baseline, pair):
        drop, how = Interval(0.0, 0.0, 0.0), "outputs identical to the baseline's"
    return QualityReading(metric.name, split_name, len(outputs), value, base, drop, how)


def check_outputs(outputs: Array, baseline: Array) -> None:
    """Raise VariantFailed(WRONG_NUMERICS) when ``outputs`` can't be a faithful version of ``baseline``.

    Infinities count only where the baseline has none: masked logits are rightly minus infinity.
    """
    if outputs.shape != baseline.shape:
        raise VariantFailed(
            Failure.WRONG_NUMERICS,
            f"the outputs have the shape {list(outputs.shape)}, the baseline's {list(baseline.shape)}.",
        )
    if outputs.dtype.kind != "f":
        return
    bad = np.isnan(outputs)
    infinite = np.isinf(outputs)
    if infinite.any():
        bad |= infinite & (outputs != baseline)
    if bad.any():
        samples = int(np.count_nonzero(bad.reshape(len(bad), -1).any(axis=1)))
        raise VariantFailed(
            Failure.WRONG_NUMERICS, f"the outputs are NaN or infinite for {samples} of {len(outputs)} samples."
        )


def _identical(outputs: Array, baseline: Array, pair: _Pair) -> bool:
    """Every output bit for bit the same, and so varied that this can't be chance.

    Equal class indices say little about the next sample; thousands of equal floats say that the
    same function was computed.
    """
    if outputs.dtype.kind != "f" or not np.array_equal(outputs, baseline):
        return False
    if pair.all_outputs.keys() != pair.all_baseline.keys():
        return False
    same = all(np.array_equal(v, pair.all_baseline[k]) for k, v in pair.all_outputs.items())
    head = outputs.reshape(-1)[:4096]
    return same and len(np.unique(head)) > min(64, len(head) // 2)


def _by_sample(pair: _Pair, rng: np.random.Generator) -> tuple[Interval, float, Interval, str]:
    mine, theirs = pair.per_sample(candidate=True), pair.per_sample(candidate=False)
    n = len(mine)
    binary = bool(np.isin(mine, (0.0, 1.0)).all() and np.isin(theirs, (0.0, 1.0)).all())
    loss = theirs - mine if pair.metric.higher_is_better else mine - theirs
    if binary and isinstance(pair.metric, BoundedMetric):
        losses, gains = int((loss > 0).sum()), int((loss < 0).sum())
        return wilson(int(mine.sum()), n), float(theirs.mean()), tango(losses, gains, n), "paired, Tango score interval"
    drop = mean_interval(loss, rng)
    if isinstance(pair.metric, BoundedMetric) and not loss.any():
        low, high = pair.metric.sample_range
        drop = _widened(drop, (high - low) * unseen(n))
    return mean_interval(mine, rng), float(theirs.mean()), drop, "paired t and BCa bootstrap"


def _widened(interval: Interval, half: float) -> Interval:
    return Interval(interval.value, min(interval.low, -half), max(interval.high, half))


def _by_bootstrap(pair: _Pair, rng: np.random.Generator) -> tuple[Interval, float, Interval, str]:
    value, base = pair.score_of(candidate=True), pair.score_of(candidate=False)
    if not (np.isfinite(value) and np.isfinite(base)):
        raise DataError(f"the metric {pair.metric.name} is undefined on these {len(pair.outputs)} samples.")
    scores = _summed(pair, pair.metric, rng) if isinstance(pair.metric, SumMetric) else _rescored(pair, rng)
    if len(scores) < _HARD_RESAMPLES // 2:
        raise DataError(
            f"the metric {pair.metric.name} is undefined on most random subsets of these {len(pair.outputs)} samples.",
            "Give more samples of the rare class.",
        )
    sign = 1.0 if pair.metric.higher_is_better else -1.0
    drops = sign * (scores[:, 1] - scores[:, 0])
    drop = percentile_of(drops, sign * (base - value))
    if not drops.any():  # no resample shows a change: one that n samples may have missed is still possible
        drop = _widened(drop, unseen(len(pair.outputs)) * max(1.0, abs(base)))
    return percentile_of(scores[:, 0], value), base, drop, f"paired bootstrap over samples, {len(scores)} resamples"


def _summed(pair: _Pair, metric: SumMetric, rng: np.random.Generator) -> Floats:
    """Bootstrapped (candidate, baseline) scores, shape (r, 2), from sums over samples."""
    reference = pair.baseline if metric.against_baseline else pair.labels
    assert metric.parts is not None
    assert metric.combine is not None
    assert reference is not None
    mine = metric.parts(pair.outputs, reference, pair.options)
    theirs = metric.parts(pair.baseline, reference, pair.options)
    resamples = int(np.clip(_RESAMPLED_VALUES // len(mine), MIN_RESAMPLES, SUM_RESAMPLES))
    sums = resampled_sums(np.hstack([mine, theirs]), resamples, rng)
    k = mine.shape[1]
    scores = np.stack([metric.combine(sums[:, :k]), metric.combine(sums[:, k:])], axis=1)
    return scores[np.isfinite(scores).all(axis=1)]


def _rescored(pair: _Pair, rng: np.random.Generator) -> Floats:
    """Bootstrapped (candidate, baseline) scores, shape (r, 2), each by scoring the resampled outputs."""
    n = len(pair.outputs)
    resamples = int(np.clip(_RESAMPLED_VALUES // max(1, pair.outputs.size), MIN_RESAMPLES, MAX_RESAMPLES))
    started = time.monotonic()

    def enough(done: int) -> bool:
        elapsed = time.monotonic() - started
        return (done >= MIN_RESAMPLES and elapsed > _SOFT_S) or (done >= _HARD_RESAMPLES and elapsed > _HARD_S)

    return bootstrap(
        lambda index: (pair.score_of(candidate=True, index=index), pair.score_of(candidate=False, index=index)),
        n,
        resamples=resamples,
        rng=rng,
        enough=enough,
    )
