"""Two-sided 95% intervals for scores and paired drops. Pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.profile import Floats, Interval

Array = npt.NDArray[Any]

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
MEAN_RESAMPLES = 2000
MANY = 20_000  # samples from which on the mean is normal enough, and resampling would take seconds
_BLOCK = 2_000_000  # resampled values held at once: 16 MB


def wilson(successes: int, n: int) -> Interval:
    """Interval of a proportion (Wilson 1927).

    >>> w = wilson(0, 50); (w.value, round(w.low, 3), round(w.high, 3))
    (0.0, 0.0, 0.071)
    """
    p = successes / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return Interval(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def tango(losses: int, gains: int, n: int) -> Interval:
    """Interval of the difference of two paired proportions, (losses - gains) / n.

    ``losses``: samples that only the baseline gets right, ``gains``: only the candidate, of ``n``.
    The score interval of Tango (1998, Statistics in Medicine 17:891-908): McNemar's test inverted
    with the constrained maximum-likelihood variance. It keeps its coverage with few disagreements
    and has a width with none.

    >>> t = tango(0, 0, 400); (t.value, round(t.low, 4), round(t.high, 4))
    (0.0, -0.0095, 0.0095)
    """
    value = (losses - gains) / n

    def statistic(delta: float) -> float:
        # q: the constrained estimate of the smaller disagreement's probability.
        a = 2.0 * n
        b = -losses - gains + (2 * n - losses + gains) * delta
        c = -gains * delta * (1 - delta)
        q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        variance = n * (2 * q + delta * (1 - delta))
        return (losses - gains - n * delta) / math.sqrt(variance) if variance > 1e-12 else 0.0

    def solve(inside: float, outside: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(statistic(middle)) <= Z:
                inside = middle
            else:
                outside = middle
        return outside

    return Interval(value, solve(value, -1.0), solve(value, 1.0))


def mcnemar(losses: int, gains: int) -> float:
    """Two-sided p-value of McNemar's exact test: are losses and gains equally likely?

    Each disagreement is a fair coin under the hypothesis (McNemar 1947; the exact form is the sign test):
    twice the smaller binomial tail, 1 at most.

    >>> mcnemar(0, 0), round(mcnemar(10, 2), 4)
    (1.0, 0.0386)
    """
    n, fewer = losses + gains, min(losses, gains)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(fewer + 1)
    tail = float(np.exp(logs[n] - logs[k] - logs[n - k] - n * math.log(2)).sum())
    return min(1.0, 2 * tail)


def unseen(n: int) -> float:
    """The largest share of a kind of sample that ``n`` random samples may all miss, with probability 2.5%."""
    return float(1 - (0.5 - LEVEL / 2) ** (1 / n))


def t_quantile(degrees: int) -> float:
    """Student's t at 97.5% by the Cornish-Fisher expansion in 1/degrees (error < 1e-3 from 10 on).

    >>> round(t_quantile(29), 3)
    2.045
    """
    v, z = float(degrees), Z
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def mean_interval(values: Floats, rng: np.random.Generator) -> Interval:
    """Interval of the mean of ``values`` (float64, shape (n,)).

    The wider bound, on each side, of Student's t and the bias-corrected accelerated bootstrap
    (Efron 1987, 2,000 resamples): t is too short on the long side of skewed values, the bootstrap
    is too short for few samples. Beyond MANY samples t alone.
    """
    n, mean = len(values), float(values.mean())
    spread = float(values.std(ddof=1)) if n > 1 else 0.0
    if spread == 0.0:
        return Interval(mean, mean, mean)
    half = t_quantile(n - 1) * spread / math.sqrt(n)
    if n > MANY:
        return Interval(mean, mean - half, mean + half)
    low, high = _bca(values, mean, rng)
    return Interval(mean, min(mean - half, low), max(mean + half, high))


def _bca(values: Floats, mean: float, rng: np.random.Generator) -> tuple[float, float]:
    n = len(values)
    block = max(1, _BLOCK // n)
    means = np.concatenate(
        [
            values[rng.integers(0, n, size=(min(block, MEAN_RESAMPLES - start), n))].mean(axis=1)
            for start in range(0, MEAN_RESAMPLES, block)
        ]
    )
    below = (np.count_nonzero(means < mean) + 0.5 * np.count_nonzero(means == mean)) / MEAN_RESAMPLES
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 1e-4), 1 - 1e-4))
    centred = values - mean
    skew = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))  # the jackknife's acceleration, for a mean

    def level(z: float) -> float:
        return normal.cdf(bias + (bias + z) / max(1e-6, 1 - skew * (bias + z)))

    low, high = np.quantile(means, [level(-Z), level(Z)])
    return float(low), float(high)


def bootstrap(
    pair: Callable[[npt.NDArray[np.int64]], tuple[float, float]],
    n: int,
    *,
    resamples: int,
    rng: np.random.Generator,
    enough: Callable[[int], bool],
) -> Floats:
    """Scores of (candidate, baseline) on resampled samples: float64, shape (k, 2), undefined ones left out.

    ``pair(indices)`` scores both on the same samples; ``enough(done)`` may end it early.
    """
    rows: list[tuple[float, float]] = []
    for done in range(resamples):
        if enough(done):
            break
        rows.append(pair(rng.integers(0, n, size=n)))
    scores = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return scores[np.isfinite(scores).all(axis=1)]


def resampled_sums(parts: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Sums of the rows of ``parts`` (n, k) over resampled samples: float64, shape (resamples, k)."""
    n = len(parts)
    return np.stack([np.bincount(rng.integers(0, n, size=n), minlength=n) @ parts for _ in range(resamples)])


def percentile_of(values: Floats, value: float) -> Interval:
    """The percentile interval of bootstrapped ``values`` around the estimate ``value``."""
    low, high = np.quantile(values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(value, min(value, float(low)), max(value, float(high)))
