"""Blocks of requests as the unit: what each adds to an estimate, and the variance of their sum."""

from __future__ import annotations

import math

import numpy as np

from autopilot.profile import Floats, Interval, Ints
from autopilot.stats.student import t_quantile


def per_block(values: Floats, block: Ints) -> tuple[Floats, Floats]:
    """Count and sum of each block that has values, in order."""
    _, index = np.unique(block, return_inverse=True)
    sums = np.bincount(index, weights=values).astype(np.float64)
    return np.bincount(index).astype(np.float64), sums


def relative_influence(amount: Floats, per: Floats) -> Floats:
    """What each block adds to the logarithm of the rate, to first order; sums to 0."""
    rate = amount.sum() / per.sum()
    return np.asarray((amount - rate * per) / amount.sum(), dtype=np.float64)


def log_interval(value: float, influence: Floats, level: float) -> Interval:
    """Student interval on the logarithm, so that both bounds stay positive and scale with the unit."""
    spread = t_quantile((1 + level) / 2, influence.size - 1) * math.sqrt(long_run_variance(influence))
    return Interval(value, value * math.exp(-spread), value * math.exp(min(spread, 700.0)))


def long_run_variance(influence: Floats) -> float:
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
