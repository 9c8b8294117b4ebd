"""Percentiles with bounds from order statistics."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from autopilot.profile import Floats, Interval, Ints
from autopilot.stats.blocks import STRETCHES, long_run, per_block, skewness, stretch_of, stretches, unskewed
from autopilot.stats.student import t_quantile

# A section's percentile needs so many requests on either side of it to be about normal and hardly biased.
_BEYOND = 25
# Below this share of independent requests a mood decides. Not where they are many: at the edge of a slow mode the
# sections' percentiles jump between modes, and covered the truth in 86% only, order statistics in 99%.
_MOODY = 0.02
# Fewer sections know their own scatter too badly: Student's t would be above 2.3.
_LEAST_SECTIONS = 10


def enough_for(q: float, level: float = 0.95, *, sides: int = 2) -> int:
    """The smallest number of independent requests for which percentile ``q`` has an upper bound at all.

    >>> enough_for(99), enough_for(95), enough_for(99, sides=1), enough_for(95, sides=1)
    (368, 72, 299, 59)
    """
    return math.ceil(math.log((1 - level) / sides) / math.log(q / 100))


def percentile_interval(values: Floats, block: Ints, q: float, level: float = 0.95) -> Interval:
    """Percentile ``q`` of ``values`` with bounds from order statistics.

    Args:
        values: float64, shape (n,), at least one, non-negative.
        block: shape (n,), the block of each value.
        q: the percentile, between 0 and 100 (99.0 for p99).
        level: the confidence of both bounds together.

    Where a mood moves whole blocks, many requests tell as much as a handful of independent ones: their order
    statistics reach far out or don't exist. Then the bounds come from the scatter of the stretches' own
    percentiles (``_sectioned``), if each stretch holds enough requests for one.

    Returns:
        ``high`` is infinite while the effective sample size is below ``enough_for(q)``; ``low`` is 0 likewise.
    """
    point = float(np.percentile(values, q))
    ordered = np.sort(values)
    n, (effective, clustered) = values.size, _effective(values <= point, block, q / 100, level)
    sectioned = _sectioned(values, block, q, level) if clustered < _MOODY * n else None
    if sectioned is not None:
        return sectioned
    low_rank, high_rank = order_ranks(effective, q / 100, level)[0], order_ranks(clustered, q / 100, level)[1]
    low = high = None
    if low_rank is not None:
        low = float(ordered[max(1, math.floor(low_rank * (n + 1) / (effective + 1))) - 1])
    if high_rank is not None:
        high = float(ordered[min(n, math.ceil(high_rank * (n + 1) / (clustered + 1))) - 1])
    # Interpolation may put the point estimate just outside tied order statistics.
    return Interval(point, 0.0 if low is None else min(low, point), math.inf if high is None else max(high, point))


def _sectioned(values: Floats, block: Ints, q: float, level: float) -> Interval | None:
    """Bounds from the scatter of each stretch's own percentile; None where some stretch holds too few requests.

    Sectioning (Asmussen and Glynn 2007, chapter III.5; Nakayama 2014): the percentile of all requests, the
    variance from the sections', long-run as for blocks. What the sections' percentiles are biased by is added.
    """
    _, index = np.unique(block, return_inverse=True)
    blocks = int(index.max()) + 1
    if blocks < _LEAST_SECTIONS or values.size * min(q, 100 - q) / 100 < _BEYOND * min(blocks, STRETCHES):
        return None
    section = stretch_of(blocks)[index]
    order = np.argsort(section, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(section))[:-1])
    if min(part.size for part in parts) * min(q, 100 - q) / 100 < _BEYOND or values.min() <= 0:
        return None
    point = float(np.percentile(values, q))
    logs = np.log([np.percentile(part, q) for part in parts]) - math.log(point)
    variance, freedom = long_run(logs / logs.size)
    half = t_quantile((1 + level) / 2, freedom) * math.sqrt(variance) + abs(float(logs.mean()))
    return Interval(point, point * math.exp(-half), point * math.exp(min(half, 700.0)))


def effective_size(below: np.ndarray, block: Ints, p: float, level: float = 0.95) -> float:
    """How many independent requests tell as much about the share ``p`` as these do, between 0 and n.

    Args:
        below: bool, shape (n,), whether a request is at or below the percentile.
        block: shape (n,), the block of each request.
        p: the percentile as a share.
        level: the confidence asked for; few blocks are discounted as Student's t would.

    One block says nothing of the spread between blocks: 0.
    """
    return _sizes(below, block, p, level)[0]


def _effective(below: np.ndarray, block: Ints, p: float, level: float) -> tuple[int, int]:
    """The effective sizes for the lower and for the upper bound, in whole requests.

    Where the slow requests sit in few blocks, a reading that caught few of them is likelier than
    the binomial says, and the upper bound must know: with a drifting mood a p99 was above it
    in 3.3% of the readings, with this in 2.3%. Looked at by blocks and by stretches of blocks.
    """
    effective, t, influence = _sizes(below, block, p, level)
    if effective <= 0:
        return 0, 0
    binomial = (2 * p - 1) / math.sqrt(effective * p * (1 - p))
    lean = max(binomial, -skewness(influence), -skewness(stretches(influence)))
    excess = unskewed(t, lean) / unskewed(t, binomial)
    return int(effective), int(effective / max(1.0, excess) ** 2)


def _sizes(below: np.ndarray, block: Ints, p: float, level: float) -> tuple[float, float, Floats]:
    """The effective size, Student's t for it, and what each block adds to the share below."""
    counts, hits = per_block(below.astype(np.float64), block)
    influence = (hits - counts * below.mean()) / below.size
    if counts.size < 2:
        return 0.0, math.inf, influence
    variance, freedom = long_run(influence)
    independent = p * (1 - p) / below.size
    t = t_quantile((1 + level) / 2, freedom)
    few = (t / NormalDist().inv_cdf((1 + level) / 2)) ** 2
    return float(below.size / max(1.0, few * variance / independent)), t, influence


def order_ranks(n: int, p: float, level: float = 0.95) -> tuple[int | None, int | None]:
    """Ranks (1..n) of the order statistics that bound the quantile ``p`` of ``n`` independent values.

    None where even the extreme value gives no bound at this level.

    >>> order_ranks(368, 0.99), order_ranks(367, 0.99)[1]
    ((360, 368), None)
    """
    tail = (1 - level) / 2
    if n < 1:
        return None, None
    below = _binomial_cdf(n, p)  # below[k] = P(at most k values lie under the quantile)
    low = int(np.searchsorted(below, tail, side="right"))  # the largest l with P(fewer than l) <= tail
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1  # the smallest u with P(at least u) <= tail
    return (low if low >= 1 else None), (high if high <= n else None)


def _binomial_cdf(n: int, p: float) -> Floats:
    """P(X <= k) for k = 0..n."""
    k = np.arange(n + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_mass = log_factorial[n] - log_factorial - log_factorial[::-1] + k * math.log(p) + (n - k) * math.log1p(-p)
    return np.cumsum(np.exp(log_mass))
