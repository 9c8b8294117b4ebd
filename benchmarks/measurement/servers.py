"""Simulated servers whose latency distribution is known, for benchmarks of the statistics. No process, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.signal import lfilter

SIGMA = 0.3
_NORMAL = NormalDist()
# Logarithms of latencies, shape (blocks * size,).
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class Simulated:
    """``draw`` gives logarithms of latencies in time order; ``truth`` the distribution's percentile or mean."""

    name: str
    draw: Draw
    truth: Callable[[float | None], float]


@dataclass(frozen=True, slots=True)
class Size:
    """A reading: ``blocks`` of ``size`` requests."""

    name: str
    blocks: int
    size: int

    @property
    def block(self) -> np.ndarray:
        return np.repeat(np.arange(self.blocks, dtype=np.int32), self.size)


SIZES = (
    Size("4 s of 0.3 ms requests in blocks of 30 ms", 133, 100),
    Size("30 s of 10 ms requests in blocks of 4", 750, 4),
    Size("40 blocks of 10", 40, 10),
)


def lognormal() -> Simulated:
    """Independent requests."""
    return Simulated("lognormal", lambda rng, b, s: SIGMA * rng.standard_normal(b * s), _lognormal_truth)


def resembling(name: str, *, requests: float, blocks: float, share: float) -> Simulated:
    """Log-normal; each request resembles the one before, and ``share`` of the variance is a mood that drifts.

    Args:
        name: for the table.
        requests: correlation of neighbouring requests, across the borders of blocks.
        blocks: correlation of neighbouring blocks' moods.
        share: the mood's share of the variance of logarithms.
    """

    def draw(rng: np.random.Generator, b: int, s: int) -> np.ndarray:
        mood = np.repeat(walk(rng, b, blocks), s)
        return SIGMA * (math.sqrt(1 - share) * walk(rng, b * s, requests) + math.sqrt(share) * mood)

    return Simulated(name, draw, _lognormal_truth)


def bimodal(slow: float) -> Simulated:
    """A fast mode, and a share ``slow`` of requests that takes e times as long."""
    fast_sd, slow_sd = 0.05, 0.1

    def draw(rng: np.random.Generator, b: int, s: int) -> np.ndarray:
        is_slow = rng.random(b * s) < slow
        return np.where(is_slow, 1.0 + slow_sd * rng.standard_normal(b * s), fast_sd * rng.standard_normal(b * s))

    def truth(q: float | None) -> float:
        if q is None:
            return (1 - slow) * math.exp(fast_sd**2 / 2) + slow * math.exp(1.0 + slow_sd**2 / 2)
        low, high = -2.0, 4.0
        for _ in range(100):
            middle = (low + high) / 2
            below = (1 - slow) * _NORMAL.cdf(middle / fast_sd) + slow * _NORMAL.cdf((middle - 1.0) / slow_sd)
            low, high = (middle, high) if below < q / 100 else (low, middle)
        return math.exp(low)

    return Simulated(f"bimodal, {slow:.0%} slow", draw, truth)


def walk(rng: np.random.Generator, n: int, memory: float) -> np.ndarray:
    """A stationary first-order autoregression of variance 1, shape (n,)."""
    noise = rng.standard_normal(n)
    noise[1:] *= math.sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], noise))


def _lognormal_truth(q: float | None) -> float:
    return math.exp(SIGMA**2 / 2 if q is None else SIGMA * _NORMAL.inv_cdf(q / 100))


SERVERS = (
    lognormal(),
    bimodal(0.05),
    bimodal(0.01),
    resembling("requests alike", requests=0.9, blocks=0.0, share=0.0),
    resembling("requests alike, mood drifts", requests=0.5, blocks=0.5, share=0.3),
)
