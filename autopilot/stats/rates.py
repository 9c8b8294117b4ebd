"""Means and rates over blocks, and their ratios."""

from __future__ import annotations

import math

from autopilot.profile import Floats, Interval, Ints
from autopilot.stats.blocks import log_interval, per_block, relative_influence


def mean_interval(values: Floats, block: Ints, level: float = 0.95) -> Interval:
    """The mean of ``values`` (float64, shape (n,)); ``block`` as in ``percentile_interval``."""
    counts, sums = per_block(values, block)
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
    return log_interval(rate, relative_influence(amount, per), level)


def rate_ratio_interval(a: tuple[Floats, Floats], b: tuple[Floats, Floats], level: float = 0.95) -> Interval:
    """Rate of ``a`` over rate of ``b``, each (amount, per) over blocks; block k of both ran side by side.

    What moved both blocks of a pair alike cancels.
    """
    blocks = min(a[0].size, b[0].size)
    (amount_a, per_a), (amount_b, per_b) = (tuple(x[:blocks] for x in s) for s in (a, b))
    ratio = float(amount_a.sum() / per_a.sum() / (amount_b.sum() / per_b.sum()))
    if blocks < 2:
        return Interval(ratio, 0.0, math.inf)
    return log_interval(ratio, relative_influence(amount_a, per_a) - relative_influence(amount_b, per_b), level)
