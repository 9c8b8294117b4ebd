"""placeholder until merge"""

from __future__ import annotations

import math

from autopilot.profile import Interval
from autopilot.stats.student import t_quantile


def widened(interval: Interval, spread: float, *, processes: int, pairs: int, level: float = 0.95) -> Interval:
    """Add spread."""
    extra = t_quantile((1 + level) / 2, pairs) * spread / math.sqrt(processes)
    v, low, high = interval.value, interval.low, interval.high
    if low > 0:
        low = v * math.exp(-math.hypot(math.log(v / low), extra))
    if math.isfinite(high) and v > 0:
        high = v * math.exp(math.hypot(math.log(high / v), extra))
    return Interval(v, low, high)


def carried(interval: Interval, drift: float) -> Interval:
    """Cover drift."""
    f = 1 / (1 + drift)
    return Interval(interval.value, interval.low * min(1, f), interval.high * max(1, f))
