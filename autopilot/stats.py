"""Percentiles, means, rates and ratios of timed requests, each with a confidence interval. Pure numpy.

Requests that ran back to back share the machine's mood, so blocks of requests are the unit, not
single requests. Intervals are two-sided; ``level`` 0.95 leaves 2.5% on each side. A bound that the
data can't give is 0 or infinity, never a guess.

Methods: percentile bounds are order statistics (the binomial argument behind MLPerf LoadGen's early
stopping) for the effective number of independent requests; means and rates are ratio estimators over
blocks with a long-run variance (Newey and West 1987); ratios of percentiles use the paired influence
of blocks where the data carry it, else combine two intervals by MOVER (Zou and Donner 2008).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from autopilot.profile import Floats, Interval, Ints

# How much of a correlation between candidate and baseline blocks is credited: its one-sided 95% lower bound.
_RHO_Z = 1.645
_RHO_CAP = 0.95
# With this many requests beyond a percentile the slope of its quantile function can be estimated, and
# the ratio's interval takes pairs of blocks directly: several times narrower when both drift together.
_CENTRAL_TAIL = 100
_CENTRAL_BLOCKS = 8


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

    Returns:
        ``high`` is infinite while the effective sample size is below ``enough_for(q)``; ``low`` is 0 likewise.
    """
    point = float(np.percentile(values, q))
    ordered = np.sort(values)
    n, effective = values.size, effective_size(values <= point, block, q / 100, level)
    low_rank, high_rank = order_ranks(int(effective), q / 100, level)
    stretch = (n + 1) / (int(effective) + 1)
    low = high = None
    if low_rank is not None:
        low = float(ordered[max(1, math.floor(low_rank * stretch)) - 1])
    if high_rank is not None:
        high = float(ordered[min(n, math.ceil(high_rank * stretch)) - 1])
    # Interpolation may put the point estimate just outside tied order statistics.
    return Interval(point, 0.0 if low is None else min(low, point), math.inf if high is None else max(high, point))


def effective_size(below: np.ndarray, block: Ints, p: float, level: float = 0.95) -> float:
    """How many independent requests tell as much about the share ``p`` as these do, between 0 and n.

    Args:
        below: bool, shape (n,), whether a request is at or below the percentile.
        block: shape (n,), the block of each request.
        p: the percentile as a share.
        level: the confidence asked for; few blocks are discounted as Student's t would.

    One block says nothing of the spread between blocks: 0.
    """
    counts, hits = _per_block(below.astype(np.float64), block)
    if counts.size < 2:
        return 0.0
    variance = _long_run_variance((hits - counts * below.mean()) / below.size)
    independent = p * (1 - p) / below.size
    few = (t_quantile((1 + level) / 2, counts.size - 1) / NormalDist().inv_cdf((1 + level) / 2)) ** 2
    return float(below.size / max(1.0, few * variance / independent))


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


def mean_interval(values: Floats, block: Ints, level: float = 0.95) -> Interval:
    """The mean of ``values`` (float64, shape (n,)); ``block`` as in ``percentile_interval``."""
    counts, sums = _per_block(values, block)
    return rate_interval(sums, counts, level)


def rate_interval(amount: Floats, per: Floats, level: float = 0.95) -> Interval:
    """``sum(amount) / sum(per)`` over blocks, such as requests a second.

    Args:
        amount: float64, shape (blocks,).
        per: float64, shape (blocks,), positive.
        level: the confidence of both bounds together.
    """
    rate = float(amount.sum() / per.sum())
    if rate == 0.0 and not amount.any():
        return Interval(0.0, 0.0, 0.0)
    if amount.size < 2:
        return Interval(rate, 0.0, math.inf)
    return _log_interval(rate, _relative_influence(amount, per), level)


def rate_ratio_interval(a: tuple[Floats, Floats], b: tuple[Floats, Floats], level: float = 0.95) -> Interval:
    """Rate of ``a`` over rate of ``b``, each (amount, per) over blocks; block k of both ran side by side.

    What moved both blocks of a pair alike cancels.
    """
    blocks = min(a[0].size, b[0].size)
    (amount_a, per_a), (amount_b, per_b) = (tuple(x[:blocks] for x in s) for s in (a, b))
    ratio = float(amount_a.sum() / per_a.sum() / (amount_b.sum() / per_b.sum()))
    if blocks < 2:
        return Interval(ratio, 0.0, math.inf)
    return _log_interval(ratio, _relative_influence(amount_a, per_a) - _relative_influence(amount_b, per_b), level)


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
        (n_a, sum_a), (n_b, sum_b) = _per_block(a, a_block), _per_block(b, b_block)
        return rate_ratio_interval((sum_a, n_a), (sum_b, n_b), level)
    x, y = percentile_interval(a, a_block, q, level), percentile_interval(b, b_block, q, level)
    if x.value <= 0 or y.value <= 0:
        return Interval(math.nan, 0.0, math.inf)
    blocks = min(np.unique(a_block).size, np.unique(b_block).size)
    if blocks >= _CENTRAL_BLOCKS and min(a.size, b.size) * (1 - q / 100) >= _CENTRAL_TAIL:
        influence = _quantile_influence(a, a_block, q)[:blocks] - _quantile_influence(b, b_block, q)[:blocks]
        return _log_interval(x.value / y.value, influence, level)
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
    counts, below = _per_block((values <= point).astype(np.float64), block)
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
    (n_a, hits_a), (n_b, hits_b) = _per_block(a.astype(float), a_block), _per_block(b.astype(float), b_block)
    blocks = min(n_a.size, n_b.size)
    x, y = (hits_a / n_a)[:blocks], (hits_b / n_b)[:blocks]
    if blocks < 5 or x.std() == 0 or y.std() == 0:
        return 0.0
    r = min(0.999, float(np.corrcoef(x, y)[0, 1]))
    return min(_RHO_CAP, max(0.0, math.tanh(math.atanh(r) - _RHO_Z / math.sqrt(blocks - 3)))) if r > 0 else 0.0


def _per_block(values: Floats, block: Ints) -> tuple[Floats, Floats]:
    """Count and sum of each block that has values, in order."""
    _, index = np.unique(block, return_inverse=True)
    sums = np.bincount(index, weights=values).astype(np.float64)
    return np.bincount(index).astype(np.float64), sums


def _relative_influence(amount: Floats, per: Floats) -> Floats:
    """What each block adds to the logarithm of the rate, to first order; sums to 0."""
    rate = amount.sum() / per.sum()
    return np.asarray((amount - rate * per) / amount.sum(), dtype=np.float64)


def _log_interval(value: float, influence: Floats, level: float) -> Interval:
    """Student interval on the logarithm, so that both bounds stay positive and scale with the unit."""
    spread = t_quantile((1 + level) / 2, influence.size - 1) * math.sqrt(_long_run_variance(influence))
    return Interval(value, value * math.exp(-spread), value * math.exp(min(spread, 700.0)))


def _long_run_variance(influence: Floats) -> float:
    """Variance of the sum of block influences, neighbouring blocks' correlation included where it adds.

    Each lag costs a degree of freedom: without that correction 15 autocorrelated blocks covered 90%.
    """
    n = influence.size
    own = float(influence @ influence)
    lags = round(n ** (1 / 3))
    shared = sum(
        2 * (1 - lag / (lags + 1)) * float(influence[lag:] @ influence[:-lag]) for lag in range(1, min(lags, n - 1) + 1)
    )
    return float((own + max(0.0, shared)) * n / max(1, n - 1 - lags))


def t_quantile(p: float, df: int) -> float:
    """Student's t quantile for ``p`` > 0.5: exact for 1 and 2 degrees of freedom, else Hill's expansion (1970).

    >>> round(t_quantile(0.975, 9), 3)
    2.262
    """
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    two_tail = 2 * (1 - p)
    a = 1 / (df - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * df
    y = (d * two_tail) ** (2 / df)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(two_tail / 2)
        y = x**2
        if df < 5:
            c += 0.3 * (df - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y**2)
    else:
        y = ((1 / (((df + 6) / (df * y) - 0.089 * d - 0.822) * (df + 2) * 3) + 0.5 / (df + 4)) * y - 1) * (df + 1) / (
            df + 2
        ) + 1 / y
    return math.sqrt(df * y)
