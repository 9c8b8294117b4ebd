"""Did the machine move while something was measured, and what a figure is worth that was taken meanwhile."""

from __future__ import annotations

import math

import numpy as np

from autopilot.profile import Floats, Interval
from autopilot.stats.student import t_quantile

# Each half's scatter is taken from this many stretches of blocks (batch means, Schmeiser 1982): few, so that
# neighbouring blocks that resemble each other fall into the same one.
_STRETCHES = 5


def change_within(medians: Floats, level: float = 0.95) -> Interval:
    """How the machine's speed changed during a reading: second half over first half, with its interval.

    Blocks that resemble their neighbours count for less, so a mood that comes and goes within a half
    is no change.

    Args:
        medians: float64, shape (blocks,), positive: medians of the baseline's blocks in order of time.
        level: the confidence of both bounds together.

    Returns:
        1.05 when the second half was 5% slower; without bounds (0 and infinity) below 10 blocks.

    Raises:
        ValueError: fewer than two blocks.
    """
    if medians.size < 2:
        raise ValueError(f"{medians.size} blocks have no two halves to compare")
    logs = np.log(medians)
    half = medians.size // 2
    first, second = logs[:half], logs[-half:]
    change = float(second.mean() - first.mean())
    if half < _STRETCHES:
        return Interval(math.exp(change), 0.0, math.inf)
    variance = sum(np.var(_means(part), ddof=1) / _STRETCHES for part in (first, second))
    spread = t_quantile((1 + level) / 2, 2 * (_STRETCHES - 1)) * math.sqrt(variance)
    return Interval(math.exp(change), math.exp(change - spread), math.exp(change + spread))


def _means(logs: Floats) -> Floats:
    return np.array([part.mean() for part in np.array_split(logs, _STRETCHES)])


def has_moved(change: Interval, tolerance: float = 0.0) -> bool:
    """Whether the machine is certain to have moved by more than ``tolerance`` (0.02: by 2%) either way.

    >>> has_moved(Interval(1.05, 1.03, 1.07), 0.02), has_moved(Interval(1.05, 0.99, 1.11))
    (True, False)
    """
    return change.low > 1 + tolerance or change.high < 1 / (1 + tolerance)


def carried(interval: Interval, drift: float) -> Interval:
    """An absolute ``interval`` that covers both the figure as it was read and the one corrected for ``drift``.

    Whether a candidate follows the machine as the baseline does isn't known, so neither figure is
    believed alone; the value stays what was read.

    Args:
        interval: a positive figure that grows with the machine's slowness, such as a latency.
        drift: how much slower the machine was than at its reference, as a share (0.05: by 5%); above -1.

    Raises:
        ValueError: ``drift`` is -1 or less, or not finite.

    >>> carried(Interval(2.1, 2.0, 2.2), 0.25)
    Interval(value=2.1, low=1.6, high=2.2)
    """
    if not (math.isfinite(drift) and drift > -1):
        raise ValueError(f"a drift of {drift:g} is no share; 0.05 means 5% slower")
    corrected = 1 / (1 + drift)
    return Interval(
        interval.value, min(interval.low, interval.low * corrected), max(interval.high, interval.high * corrected)
    )
