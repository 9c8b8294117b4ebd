"""Readings: the raw latencies that the report draws, which result.json doesn't hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autopilot.profile import Floats, Profile

# Points a curve is drawn with: more than a screen has pixels for one chart tells nothing.
CURVE_POINTS = 160


@dataclass(frozen=True, slots=True)
class Readings:
    """Latencies of the baseline and the chosen variant, read in alternation in the same minutes.

    baseline_s, chosen_s: float64, shape (n_requests,), seconds, warm-up excluded; None where none were kept.
    ``verified`` tells whether they are from the second measurement, in fresh processes. ``note``: why they
    are missing.
    """

    baseline_s: Floats | None = None
    chosen_s: Floats | None = None
    verified: bool = False
    note: str = ""

    @classmethod
    def of(cls, profile: Profile, *, verified: bool) -> Readings:
        """The latencies in ``profile``: the variant's own and the baseline's beside it."""
        own, beside = profile.latency, profile.baseline_latency
        if own is None or own.latency_s.size == 0:
            return cls(note="no request of the chosen variant was timed")
        return cls(None if beside is None else beside.latency_s, own.latency_s, verified)

    @property
    def curves(self) -> dict[str, Floats]:
        """Finite latencies by who answered: ``baseline``, ``chosen``; sorted, seconds."""
        given = {"baseline": self.baseline_s, "chosen": self.chosen_s}
        sound = {who: np.sort(s[np.isfinite(s) & (s > 0)]) for who, s in given.items() if s is not None}
        return {who: s for who, s in sound.items() if s.size}


def ecdf(sorted_s: Floats) -> tuple[Floats, Floats]:
    """Latencies and the shares of requests that are as fast: both float64, shape (at most CURVE_POINTS,)."""
    ranks = np.unique(np.rint(np.linspace(0, sorted_s.size - 1, CURVE_POINTS)).astype(np.int64))
    return sorted_s[ranks], (ranks + 1) / sorted_s.size


def tail(sorted_s: Floats) -> tuple[Floats, Floats]:
    """Latencies and the shares of requests that are as slow or slower, from a half down to one request in all.

    Both float64, shape (at most CURVE_POINTS,): the same readings as ``ecdf``'s, on a scale that shows the slow ones.
    """
    n = sorted_s.size
    # How many requests are at least as slow: whole numbers, the slowest one last.
    slower = np.unique(np.rint(np.geomspace(max(1.0, n / 2), 1, CURVE_POINTS)).astype(np.int64))[::-1]
    return sorted_s[n - slower], slower / n
