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
# Where the quantile function is this many times steeper on one side of a percentile than on the other, the
# percentile lies at the edge of a mode and has no slope: with 5% of the requests in a slow mode, the p95's ratio
# was covered in 54% of the cases by the slope, in 99% by combining two order-statistic intervals.
_EDGE = 3.0


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
    enough = blocks >= _CENTRAL_BLOCKS and min(a.size, b.size) * (1 - q / 100) >= _CENTRAL_TAIL
    if enough and _is_smooth(a, x, q) and _is_smooth(b, y, q):
        influence = _quantile_influence(a, a_block, q)[:blocks] - _quantile_influence(b, b_block, q)[:blocks]
        return log_interval(x.value / y.value, influence, level)
    rho = _shared(a <= x.value, a_block, b <= y.value, b_block)
    down = _combine(_log_gap(x.low, x.value), _log_gap(y.value, y.high), rho)
    up = _combine(_log_gap(x.value, x.high), _log_gap(y.low, y.value), rho)
    ratio = x.value / y.value
    return Interval(ratio, ratio * math.exp(-down), ratio * math.exp(up) if math.isfinite(up) else math.inf)


def _quantile_influence(values: Floats, block: Ints, q: float) -> Floats:
    """What each block adds to the logarithm of percentile ``q``, to first order."""
    p = q / 100
    low, point, high = _around(values, q)
    counts, below = per_block((values <= point).astype(np.float64), block)
    slope = math.log(high / max(low, 1e-9 * high)) / (2 * _bandwidth(values.size, p))
    return np.asarray(-(below - p * counts) / values.size * slope, dtype=np.float64)


def _around(values: Floats, q: float) -> tuple[float, float, float]:
    """Percentile ``q`` between the two that the slope of the quantile function is taken from."""
    width = 100 * _bandwidth(values.size, q / 100)
    low, point, high = np.percentile(values, [q - width, q, q + width])
    return float(low), float(point), float(high)


def _bandwidth(n: int, p: float) -> float:
    """Bofinger's (1975), for a difference quotient of the quantile function at share ``p``."""
    z = NormalDist().inv_cdf(p)
    bandwidth = (4.5 * NormalDist().pdf(z) ** 4 / (2 * z * z + 1) ** 2 / n) ** 0.2
    return float(min(bandwidth, 0.9 * min(p, 1 - p)))


def _is_smooth(values: Floats, bounds: Interval, q: float) -> bool:
    """Whether the quantile function is about as steep on both sides of percentile ``q``.

    Looked at over the slope's own window, and over the bounds of the percentile where they lie inside
    it: wider ones come from a drift that the ratio doesn't see.
    """
    windows = [_around(values, q)]
    if windows[0][0] <= bounds.low and bounds.high <= windows[0][2]:
        windows.append((bounds.low, bounds.value, bounds.high))
    sides = [sorted((_log_gap(low, point), _log_gap(point, high))) for low, point, high in windows]
    return all(longer <= _EDGE * shorter for shorter, longer in sides)


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
