"""What busy time adds above idle, a unit of work."""

from __future__ import annotations

import math

from autopilot.profile import Floats, Interval
from autopilot.stats.student import t_quantile


def excess_interval(
    busy: tuple[Floats, Floats], idle: tuple[Floats, Floats], work: Floats, level: float = 0.95
) -> Interval:
    """Amount above idle for one unit of work, from pairs of a busy and an idle block.

    Each is (amount, seconds), float64, shape (pairs,) both; what the idle block of a pair used in a second is
    taken off its busy block. Pairs are the unit: each has blocks of its own, so that they are independent.
    Where a steady drift is to cancel, the order within pairs alternates. The interval is Student's on a ratio
    estimator (Cochran 1977, 6.3); its bounds may be below 0, where idle moves more than the work adds.

    Args:
        busy: amount and seconds of the busy blocks.
        idle: amount and seconds of the idle blocks, seconds positive.
        work: float64, shape (pairs,), positive, the work done in the busy blocks.
        level: the confidence of both bounds together.

    >>> import numpy as np
    >>> one = np.ones(4)
    >>> excess_interval((30 * one, 2 * one), (10 * one, one), 5 * one).value
    2.0
    """
    (busy_amount, busy_s), (idle_amount, idle_s) = busy, idle
    net = busy_amount - idle_amount / idle_s * busy_s
    value = float(net.sum() / work.sum())
    pairs = net.size
    if pairs < 2:
        return Interval(value, -math.inf, math.inf)
    influence = (net - value * work) / work.sum()
    spread = math.sqrt(float(influence @ influence) * pairs / (pairs - 1))
    half = t_quantile((1 + level) / 2, pairs - 1) * spread
    return Interval(value, value - half, value + half)
