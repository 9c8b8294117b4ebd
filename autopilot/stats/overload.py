"""Does a queue grow without end?"""

from __future__ import annotations

import math

from autopilot.profile import Floats
from autopilot.stats.student import t_quantile

# A queue certain to grow by this share of the requests that come has no steady state. Below it, growth may
# be a queue that is still filling to its steady length, unless the server was busy nearly all the time.
_GROWTH = 0.05
_BUSY = 0.97


def is_overloaded(growth: Floats, busy_share: float, level: float = 0.95) -> bool:
    """Whether more requests come than are answered, certainly.

    Args:
        growth: float64, shape (n_windows,), how much the queue grew in each window, as a share of the requests.
        busy_share: the share of its time in which the server ran the model.
        level: the confidence asked for, two-sided.

    One window says nothing of the spread between windows: False.
    """
    n = growth.size
    if n < 2:
        return False
    spread = t_quantile((1 + level) / 2, n - 1) * float(growth.std(ddof=1)) / math.sqrt(n)
    low = float(growth.mean()) - spread
    return low > _GROWTH or (low > 0 and busy_share >= _BUSY)
