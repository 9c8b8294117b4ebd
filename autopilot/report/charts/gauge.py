"""A gauge: one limit, what is allowed, and where the figure and its interval lie."""

from __future__ import annotations

import math

from autopilot.budget import Judgement, Limit
from autopilot.profile import Interval
from autopilot.report.charts.scale import Scale
from autopilot.report.html import Html, el

_WIDTH, _HEIGHT = 260, 30
_MIDDLE = 15
# A figure further out than this many limits is drawn at the end, with an arrow: the limit stays visible.
_FURTHEST = 4.0


def gauge(limit: Limit, found: Interval | None, judgement: Judgement) -> Html:
    """The allowed range shaded, the margin hatched, the limit as a line, the interval as a bar with its value."""
    scale = _scale(limit, found)
    free, bound = scale(limit.effective), scale(limit.bound)
    inside = (scale.start, free) if limit.upper else (free, scale.end)
    parts = [
        el("rect", x=scale.start, y=7, width=scale.end - scale.start, height=16, rx=3, class_="track"),
        el("rect", x=inside[0], y=7, width=max(0.0, inside[1] - inside[0]), height=16, rx=3, class_="allowed"),
        el("rect", x=min(free, bound), y=7, width=abs(bound - free), height=16, class_="kept"),
    ]
    if found is not None:
        parts += _figure(scale, found, judgement)
    # Last: the limit is never hidden by the interval.
    parts.append(el("path", d=f"M{bound:.1f} 2V28", class_="limit"))
    return el("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="gauge", aria_hidden="true")


def _scale(limit: Limit, found: Interval | None) -> Scale:
    """From 0 (or the lowest figure) to a little beyond limit and figure."""
    size = abs(limit.bound) or (max(abs(found.low), abs(found.high)) if found is not None else 0.0)
    size = size if size and math.isfinite(size) else 1.0
    ends = [0.0, limit.bound * 1.25]
    if found is not None:
        ends += [v for v in (found.low, found.value * 1.08, found.high * 1.04) if math.isfinite(v)]
    low, high = max(min(ends), -_FURTHEST * size), min(max(ends), _FURTHEST * size)
    low = low * 1.08 if low < 0 else low
    return Scale(low, high if high > low else low + size, 4, _WIDTH - 4)


def _figure(scale: Scale, found: Interval, judgement: Judgement) -> list[Html]:
    low, value, high = (scale(v) for v in (found.low, found.value, found.high))
    # Beside the arrow, not on it.
    value = min(max(value, scale.start + 10 * (found.value < scale.low)), scale.end - 10 * (found.value > scale.high))
    kind = judgement.value
    parts = [el("path", d=f"M{low:.1f} {_MIDDLE}H{max(high, low + 1):.1f}", class_=f"interval {kind}")]
    if found.high > scale.high:
        parts.append(el("path", d=f"M{scale.end - 6:.1f} 10l5 5l-5 5", class_=f"arrow {kind}"))
    if found.low < scale.low:
        parts.append(el("path", d=f"M{scale.start + 6:.1f} 10l-5 5l5 5", class_=f"arrow {kind}"))
    return [*parts, el("circle", cx=value, cy=_MIDDLE, r=4.6, class_=f"value {kind}")]
