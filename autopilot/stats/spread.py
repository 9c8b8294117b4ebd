"""Serving processes of one and the same model differ: intervals that know of it.

Two fresh processes of one model kept a difference of 0.2% (0.27 ms a request) to 0.5% (0.02 ms) in
their medians for as long as they lived, most likely from where the system put their memory, while
four seconds of interleaved blocks gave +-0.15%: 3 of 12 comparisons of a model with itself were false
alarms. No number of requests to one process shows that spread; other processes do. Mytkowicz et al.
(2009) describe the effect, Kalibera and Jones (2013) the answer: repeat at the level that varies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autopilot.profile import Floats, Interval
from autopilot.stats.student import t_quantile


def process_spread(log_ratios: Floats) -> float:
    """Standard deviation of the logarithm of the ratio of two processes of one model.

    Args:
        log_ratios: float64, shape (pairs,), at least one: logarithms of the ratio of both processes'
            medians. Their true mean is 0, so that every pair is a degree of freedom.

    Raises:
        ValueError: there is no pair.

    >>> round(process_spread(np.array([0.003, -0.004])), 5)
    0.00354
    """
    if log_ratios.size == 0:
        raise ValueError("no pair of processes was compared, so their spread is unknown")
    return float(np.sqrt(np.mean(np.square(log_ratios))))


def widened(interval: Interval, spread: float, *, processes: int, pairs: int, level: float = 0.95) -> Interval:
    """``interval`` of one or several processes as it holds for any process of the same model.

    What processes add is independent of what their requests add, so each side's half-width and
    theirs are added in quadrature on the logarithmic scale. Bounds of 0 and infinity stay.

    Args:
        interval: a positive figure, bounded from the requests of ``processes`` processes.
        spread: how far processes differ, as a standard deviation of logarithms: for a ratio of two
            models as ``process_spread`` gives it, for the figure of one model that over sqrt(2).
        processes: how many fresh processes (or pairs of them) the figure comes from.
        pairs: how many pairs of processes ``spread`` was taken from: its degrees of freedom.
        level: the confidence of both bounds together.

    Raises:
        ValueError: ``processes`` or ``pairs`` is below 1, or ``spread`` is negative.
    """
    if processes < 1 or pairs < 1 or spread < 0:
        raise ValueError(f"a spread of {spread:g} from {pairs} pairs over {processes} processes widens nothing")
    if not interval.value > 0:
        return interval
    own = t_quantile((1 + level) / 2, pairs) * spread / math.sqrt(processes)
    down = math.hypot(_log_gap(interval.low, interval.value), own)
    up = math.hypot(_log_gap(interval.value, interval.high), own)
    return _around(interval.value, down, up, inside=interval)


def ratio_over_processes(ratios: Sequence[Interval], level: float = 0.95) -> Interval:
    """The ratio of two models from several pairs of fresh processes, without knowing their spread beforehand.

    The geometric mean of the pairs' ratios. Its half-width is Student's over the pairs, whose scatter
    holds both what processes and what requests add, and never less than the requests alone give.
    A pair whose requests gave no bound counts like the others there, if most gave one: its ratio
    scatters all the same.

    Args:
        ratios: the ratio that each pair of fresh processes gave, with the interval from its requests.
        level: the confidence of both bounds together, that of ``ratios`` too.

    Returns:
        Without bounds (0 and infinity) for a single pair, which says nothing of the spread between pairs.

    Raises:
        ValueError: there is no pair.
    """
    if not ratios:
        raise ValueError("no pair of processes was compared")
    pairs = len(ratios)
    logs = np.log([r.value for r in ratios])
    value = math.exp(float(logs.mean()))
    if pairs < 2:
        return Interval(value, 0.0, math.inf)
    between = t_quantile((1 + level) / 2, pairs - 1) * float(logs.std(ddof=1)) / math.sqrt(pairs)
    down = _pooled([_log_gap(r.low, r.value) for r in ratios])
    up = _pooled([_log_gap(r.value, r.high) for r in ratios])
    return _around(value, max(down, between), max(up, between))


def _pooled(gaps: Sequence[float]) -> float:
    """Half-width of the mean of independent figures with half-widths ``gaps``; those known stand for the others."""
    known = [gap for gap in gaps if math.isfinite(gap)]
    if 2 * len(known) <= len(gaps):
        return math.inf
    return math.sqrt(sum(gap * gap for gap in known) / len(known) / len(gaps))


def _log_gap(low: float, high: float) -> float:
    return math.inf if low <= 0 or math.isinf(high) else math.log(high / low)


def _around(value: float, down: float, up: float, *, inside: Interval | None = None) -> Interval:
    """Bounds from half-widths of the logarithm; rounding never leaves ``inside`` uncovered."""
    low = value * math.exp(-down)
    high = value * math.exp(up) if up < 700.0 else math.inf
    if inside is not None:
        low, high = min(low, inside.low), max(high, inside.high)
    return Interval(value, low, high)
