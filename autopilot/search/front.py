"""The Pareto front of figures with intervals. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autopilot.profile import Interval


@dataclass(frozen=True, slots=True)
class Point:
    """One variant: its trial's number and one figure an objective, each the better the smaller.

    ``verified``: measured a second time, on data that chose nothing.
    """

    number: int
    figures: tuple[Interval, ...]
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A point on the front; ``certain`` where no other point may, within the intervals, be as good everywhere."""

    point: Point
    certain: bool


def beats(a: Point, b: Point) -> bool:
    """Whether ``a`` keeps ``b`` off the front: nowhere worse, and certainly better somewhere.

    Points that the noise alone separates don't beat each other. A first measurement, which may have been
    lucky, never beats a second one.

    >>> fast, slow = Interval(1.0, 0.9, 1.1), Interval(2.0, 1.9, 2.1)
    >>> beats(Point(0, (fast, fast)), Point(1, (slow, fast)))
    True
    >>> beats(Point(0, (fast, fast)), Point(1, (Interval(1.05, 0.95, 1.15), fast)))
    False
    """
    if b.verified and not a.verified:
        return False
    pairs = list(zip(a.figures, b.figures, strict=True))
    return all(x.value <= y.value for x, y in pairs) and any(x.high < y.low for x, y in pairs)


def front(points: Sequence[Point]) -> tuple[Placed, ...]:
    """Points that no other beats, by their figures; points without a figure have no place."""
    known = [p for p in points if all(math.isfinite(x.value) for x in p.figures)]
    kept = [p for p in known if not any(beats(q, p) for q in known)]
    placed = [Placed(p, not any(_may_match(q, p) for q in known if q is not p)) for p in kept]
    return tuple(sorted(placed, key=lambda m: (tuple(x.value for x in m.point.figures), m.point.number)))


def _may_match(a: Point, b: Point) -> bool:
    """Whether ``a`` may, within the intervals, be at least as good as ``b`` everywhere."""
    return all(x.low <= y.high for x, y in zip(a.figures, b.figures, strict=True))
