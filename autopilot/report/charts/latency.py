"""Charts of requests: how many are as fast as this, and how slow the slow ones are."""

from __future__ import annotations

from collections.abc import Mapping

from autopilot.profile import Floats
from autopilot.report.charts.frame import Frame, drawn, legend, line_sign, polyline
from autopilot.report.html import Html, joined
from autopilot.report.readings import Readings, ecdf, tail
from autopilot.report.words import figure
from autopilot.words import percent

# The distribution's picture ends where the slower of both has this share of its requests: the rest is the tail's.
_SHOWN = 0.99


def distribution_chart(readings: Readings, names: Mapping[str, str]) -> Html | None:
    """The share of requests that are as fast, for baseline and chosen variant; None without readings."""
    curves = {who: ecdf(s) for who, s in readings.curves.items()}
    if not curves:
        return None
    most_s = max(float(x[y <= _SHOWN].max()) if (y <= _SHOWN).any() else float(x.max()) for x, y in curves.values())
    cut = {who: (x[x <= most_s] * 1e3, y[x <= most_s]) for who, (x, y) in curves.items()}
    return _both(cut, names, "latency of a request (ms)", "requests as fast or faster", is_tail=False)


def tail_chart(readings: Readings, names: Mapping[str, str]) -> Html | None:
    """Latency by how rare it is: half of all requests, one in ten, in a hundred, a thousand; None without readings."""
    curves = {who: tail(s) for who, s in readings.curves.items()}
    if not curves:
        return None
    turned = {who: (1 / slower, latency_s * 1e3) for who, (latency_s, slower) in curves.items()}
    return _both(turned, names, "percentile", "latency of a request (ms)", is_tail=True)


def _both(
    curves: Mapping[str, tuple[Floats, Floats]], names: Mapping[str, str], x_title: str, y_title: str, *, is_tail: bool
) -> Html:
    xs = [float(v) for x, _ in curves.values() for v in (x.min(), x.max())]
    ys = [float(v) for _, y in curves.values() for v in (y.min(), y.max())] if is_tail else [0.0, 1.0]
    x_text = _percentile if is_tail else figure

    def make(width: int) -> Html:
        frame = Frame.around(width, xs, ys, x_text=x_text, y_text=figure if is_tail else percent, y_log=is_tail)
        lines = [
            polyline([(frame.x(a), frame.y(b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)], f"curve {who}")
            for who, (x, y) in curves.items()
        ]
        said = " and ".join(names[who] for who in curves)
        return frame.svg(frame.grid(x_title, y_title), *lines, label=f"{y_title} by {x_title}: {said}")

    return joined(drawn(make), legend(*((line_sign(f"curve {who}"), names[who]) for who in curves)))


def _percentile(one_in: float) -> str:
    """One request in so many as a percentile: 100 is 99%."""
    return f"{100 * (1 - 1 / one_in):.6g}%"
