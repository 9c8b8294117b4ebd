"""Does a queue grow without end?"""

from __future__ import annotations

import math

from autopilot.profile import Floats
from autopilot.stats.student import t_quantile

# A queue certain to grow by this share of the requests that come has no steady state. Below it, growth may
# be a queue that is still filling to its steady length, unless the server was busy nearly all the time.
_GROWTH = 0.05
_BUSY = 0.97
# Runs next to each other are alike: the error of their mean is taken to be so many times that of independent ones.
_ALIKE = 1.5


def is_overloaded(growth: Floats, busy_share: float, needed: Floats, level: float = 0.95) -> bool:
    """Whether more requests come than can be answered, certainly.

    Either each full run takes longer than its requests take to come (the utilization law: seen at once and
    with little noise), or the queue was seen to grow (where instances slow each other down under load).

    Args:
        growth: float64, shape (n_windows,), how much the queue grew in each window, as a share of the requests.
        busy_share: the share of its time in which the server ran the model.
        needed: float64, shape (n_full_runs,), each full run's time over the time in which its requests come.
        level: the confidence asked for, two-sided.

    One window says nothing of the spread between windows, one run nothing of that between runs.
    """
    if needed.size > 1 and float(needed.mean()) - _ALIKE * _half_width(needed, level) > 1:
        return True
    if growth.size < 2:
        return False
    low = float(growth.mean()) - _half_width(growth, level)
    return low > _GROWTH or (low > 0 and busy_share >= _BUSY)


def _half_width(values: Floats, level: float) -> float:
    """Half the width of the mean's Student interval, for at least two values."""
    return t_quantile((1 + level) / 2, values.size - 1) * float(values.std(ddof=1)) / math.sqrt(values.size)
