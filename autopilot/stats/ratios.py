"""Ratios of percentiles and means of two models that ran side by side."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from autopilot.profile import Floats, Interval, Ints
from autopilot.stats.blocks import log_interval, per_block
from autopilot.stats.percentiles import percentile_interval
from autopilot.stats.rates import rate_ratio_interval

# How much of a correlation between candidate and baseline blocks is credited: its one-sided 95% lower bound.
_RHO_Z = 1.645
_RHO_CAP = 0.95
# With this many requests beyond a percentile the slope of its quantile function can be estimated, and
# the ratio's interval takes pairs of blocks directly: several times narrower when both drift together.
_CENTRAL_TAIL = 100
_CENTRAL_BLOCKS = 8


def ratio_interval(
    a: Floats, a_block: Ints, b: Floats, b_block: Ints, *, q: float | None = None, level: float = 0.95
) -> Interval:
    """``a`` over ``b``: the ratio of their percentiles ``q``, or of their means when ``q`` is None.

    Args:
        a: float64, shape (n,), the candidate's requests; ``a_block`` their blocks.
        a_block: shape (n,), integer.
        b: float64, shape (m,), the baseline's requests; ``b_block`` their blocks.
        b_block: shape (m,), integer; block k of both ran side by side.
        q: the percentile, or None for the mean.
        level: the confidence of both bounds together.
    """
    if q is None:
        (n_a, sum_a), (n_b, sum_b) = per_block(a, a_block), per_block(b, b_block)
        return rate_ratio_interval((sum_a, n_a), (sum_b, n_b), level)
    x, y = percentile_interval(a, a_block, q, level), percentile_interval(b, b_block, q, level)
    if x.value <= 0 or y.value <= 0:
        return Interval(math.nan, 0.0, math.inf)
    blocks = min(np.unique(a_block).size, np.unique(b_block).size)
    if blocks >= _CENTRAL_BLOCKS and min(a.size, b.size) * (1 - q / 100) >= _CENTRAL_TAIL:
        influence = _quantile_influence(a, a_block, q)[:blocks] - _quantile_influence(b, b_block, q)[:blocks]
        return log_interval(x.value / y.value, influence, level)
    rho = _shared(a <= x.value, a_block, b <= y.value, b_block)
    down = _combine(_log_gap(x.low, x.value), _log_gap(y.value, y.high), rho)
    up = _combine(_log_gap(x.value, x.high), _log_gap(y.low, y.value), rho)
    ratio = x.value / y.value
    return Interval(ratio, ratio * math.exp(-down), ratio * math.exp(up) if math.isfinite(up) else math.inf)


def _quantile_influence(values: Floats, block: Ints, q: float) -> Floats:
    """What each block adds to the logarithm of percentile ``q``, to first order.

    The slope of the quantile function is a difference quotient with Bofinger's (1975) bandwidth.
    """
    p, z = q / 100, NormalDist().inv_cdf(q / 100)
    bandwidth = (4.5 * NormalDist().pdf(z) ** 4 / (2 * z * z + 1) ** 2 / values.size) ** 0.2
    bandwidth = min(bandwidth, 0.9 * min(p, 1 - p))
    low, point, high = np.percentile(values, [100 * (p - bandwidth), q, 100 * (p + bandwidth)])
    counts, below = per_block((values <= point).astype(np.float64), block)
    slope = math.log(high / max(low, 1e-9 * high)) / (2 * bandwidth)
    return np.asarray(-(below - p * counts) / values.size * slope, dtype=np.float64)


def _log_gap(low: float, high: float) -> float:
    return math.inf if low <= 0 or math.isinf(high) else math.log(high / low)


def _combine(first: float, second: float, rho: float) -> float:
    """MOVER's half-width from two half-widths and the correlation of the two estimates."""
    if math.isinf(first) or math.isinf(second):
        return math.inf
    return math.sqrt(max(0.0, first**2 + second**2 - 2 * rho * first * second))


def _shared(a: np.ndarray, a_block: Ints, b: np.ndarray, b_block: Ints) -> float:
    """A cautious correlation of two percentile estimates, from what paired blocks have in common; >= 0."""
    (n_a, hits_a), (n_b, hits_b) = per_block(a.astype(float), a_block), per_block(b.astype(float), b_block)
    blocks = min(n_a.size, n_b.size)
    x, y = (hits_a / n_a)[:blocks], (hits_b / n_b)[:blocks]
    if blocks < 5 or x.std() == 0 or y.std() == 0:
        return 0.0
    r = min(0.999, float(np.corrcoef(x, y)[0, 1]))
    return min(_RHO_CAP, max(0.0, math.tanh(math.atanh(r) - _RHO_Z / math.sqrt(blocks - 3)))) if r > 0 else 0.0
