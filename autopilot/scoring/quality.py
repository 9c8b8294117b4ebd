"""Scores of a candidate and the baseline on the same samples, with a paired interval on the drop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Metric
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.profile import Floats, QualityReading, RawScores, ScoreKind
from autopilot.scoring.intervals import bootstrap
from autopilot.scoring.kinds import BoundedMetric, FunctionMetric, SumMetric
from autopilot.scoring.raw import RESAMPLED_VALUES, Asked, interpret, summed

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]

MIN_RESAMPLES, MAX_RESAMPLES = 200, 500
# Summands of more samples and kinds than this are not kept: 16 MB a model, and some 100 kB compressed.
_KEPT_PARTS = 2_000_000
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
    whole, raw = _by_sample(pair) if metric.per_sample is not None else _by_resampling(pair, rng)
    identical = same_model or _identical(outputs, baseline, pair)
    raw = replace(raw, identical=identical, seed=seed)
    return interpret(raw, Asked(metric.name, split_name, len(outputs)), metric, whole)


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


def _by_sample(pair: _Pair) -> tuple[tuple[float, float], RawScores]:
    mine, theirs = pair.per_sample(candidate=True), pair.per_sample(candidate=False)
    span = pair.metric.sample_range if isinstance(pair.metric, BoundedMetric) else None
    whole = float(mine.mean()), float(theirs.mean())
    return whole, RawScores(ScoreKind.VALUES, mine, theirs, pair.metric.higher_is_better, span)


def _by_resampling(pair: _Pair, rng: np.random.Generator) -> tuple[tuple[float, float], RawScores]:
    whole = pair.score_of(candidate=True), pair.score_of(candidate=False)
    if not np.isfinite(whole).all():
        raise DataError(f"the metric {pair.metric.name} is undefined on these {len(pair.outputs)} samples.")
    better = pair.metric.higher_is_better
    if isinstance(pair.metric, SumMetric):
        mine, theirs = _parts(pair, pair.metric)
        if mine.size <= _KEPT_PARTS:
            return whole, RawScores(ScoreKind.PARTS, mine, theirs, better)
        scores = summed(pair.metric, mine, theirs, rng)
    else:
        scores = _rescored(pair, rng)
    return whole, RawScores(ScoreKind.RESAMPLED, scores[:, 0], scores[:, 1], better)


def _parts(pair: _Pair, metric: SumMetric) -> tuple[Floats, Floats]:
    """The summands of every sample, of candidate and baseline: float64, shape (n, k)."""
    reference = pair.baseline if metric.against_baseline else pair.labels
    assert metric.parts is not None
    assert reference is not None
    return metric.parts(pair.outputs, reference, pair.options), metric.parts(pair.baseline, reference, pair.options)


def _rescored(pair: _Pair, rng: np.random.Generator) -> Floats:
    """Bootstrapped (candidate, baseline) scores, shape (r, 2), each by scoring the resampled outputs."""
    n = len(pair.outputs)
    resamples = int(np.clip(RESAMPLED_VALUES // max(1, pair.outputs.size), MIN_RESAMPLES, MAX_RESAMPLES))
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
