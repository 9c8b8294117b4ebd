"""Histograms of a tensor's values, and the ranges that follow from them: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Array

# Bins over [-bound, bound]; bound is a power of two, so at least a quarter of them is in use.
BINS = 8192
# Masks such as -3e38 leave no bits for anything else: tensors beyond this are never quantized.
HUGE = 1e30
# What entropy calibration may clip.
_MOST_CLIPPED = 0.001

Counts = npt.NDArray[np.int64]
Range = tuple[float, float]


@dataclass(slots=True)
class Histogram:
    """Distribution of one tensor's values, any shape.

    ``counts``: int64, shape (BINS,), equal bins over [-bound, bound]; ``low`` and ``high`` the
    extremes; ``usable`` False where a value was not finite or beyond HUGE.
    """

    low: float
    high: float
    bound: float
    counts: Counts
    usable: bool = True

    @classmethod
    def empty(cls) -> Histogram:
        return cls(0.0, 0.0, 2.0**-24, np.zeros(BINS, np.int64))

    def add(self, values: Array) -> None:
        """Count more values (float, any shape)."""
        x = np.asarray(values, np.float32).ravel()
        if x.size == 0 or not self.usable:
            return
        low, high = float(x.min()), float(x.max())
        peak = max(-low, high)
        if not peak < HUGE:  # NaN too
            self.usable = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        while peak > self.bound:
            self._widen()
        half = BINS // 2
        index = (x * np.float32(half / self.bound) + np.float32(half)).astype(np.int32)
        np.clip(index, 0, BINS - 1, out=index)
        self.counts += np.bincount(index, minlength=BINS)

    def _widen(self) -> None:
        quarter = BINS // 4
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[quarter : quarter + BINS // 2] = merged
        self.bound *= 2

    def edges(self) -> npt.NDArray[np.float64]:
        """Bin edges, shape (BINS + 1,)."""
        return np.linspace(-self.bound, self.bound, BINS + 1)

    def span(self, method: str, percentile: float) -> Range:
        """The range to quantize over: ``minmax``, ``percentile`` (of both tails together) or ``entropy``."""
        if method == "minmax" or self.high <= self.low:
            return self.low, self.high
        low, high = self._percentile(percentile) if method == "percentile" else self._entropy()
        return max(low, self.low), min(high, self.high)

    def _percentile(self, percentile: float) -> Range:
        share = np.cumsum(self.counts) / self.counts.sum()
        tail = (100.0 - percentile) / 200.0
        left = int(np.searchsorted(share, tail, side="right"))
        right = int(np.searchsorted(share, 1.0 - tail))
        edges = self.edges()
        return float(edges[min(left, BINS - 1)]), float(edges[min(right, BINS - 1) + 1])

    def _entropy(self) -> Range:
        """The clipping threshold of least KL divergence (Migacz, TensorRT, GTC 2017), on magnitudes.

        One-sided tensors have twice the levels. Thresholds that clip more than _MOST_CLIPPED of the
        values are not considered: a constant background makes them look free (fashion: 0.94 -> 0.78).
        """
        half = BINS // 2
        magnitude = self.counts[half:] + self.counts[:half][::-1]
        levels = 256 if self.low >= 0 or self.high <= 0 else 128
        step = half // 256
        kept = np.cumsum(magnitude) / magnitude.sum()
        least = int(np.searchsorted(kept, 1.0 - _MOST_CLIPPED)) + 1
        sizes = range(max(levels, -(-least // step) * step), half + 1, step)
        scores = [_divergence(magnitude, size, levels) for size in sizes]
        threshold = self.bound * sizes[int(np.argmin(scores))] / half
        return -threshold, threshold


def _divergence(magnitude: Counts, size: int, levels: int) -> float:
    """KL(P || Q): P the first ``size`` bins with the rest clipped into the last, Q what ``levels`` steps keep."""
    kept = magnitude[:size].astype(np.float64)
    p = kept.copy()
    p[-1] += magnitude[size:].sum()
    owner = np.arange(size) * levels // size
    filled = kept > 0
    mass = np.bincount(owner, kept, minlength=levels)
    cells = np.bincount(owner, filled, minlength=levels)
    q = np.where(filled, mass[owner] / np.maximum(cells[owner], 1), 0.0)
    if q.sum() == 0:
        return np.inf
    p /= p.sum()
    q /= q.sum()
    # A clipped bin that Q leaves empty costs much, but not infinitely much.
    where = p > 0
    return float(np.sum(p[where] * np.log(p[where] / np.maximum(q[where], 1e-7))))
