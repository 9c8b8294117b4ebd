"""Frame: the plotting area of a chart with its grid and axes; and the marks that trials are drawn with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autopilot.report.charts.scale import Scale
from autopilot.report.html import Html, el, joined
from autopilot.report.points import Mark
from autopilot.report.words import figure

# Units of the drawing: one is a pixel on a page of the usual width, so that text keeps its size on a phone.
WIDE, NARROW = 520, 330
_HEIGHTS = {WIDE: 310, NARROW: 250}
_TOP, _RIGHT, _BOTTOM = 14, 14, 44
_LETTER = 6.6  # the usual width of a character of the 12-pixel labels


@dataclass(frozen=True, slots=True)
class Frame:
    """A chart's outer size, its two scales, and how figures are written along them."""

    width: int
    height: int
    x: Scale
    y: Scale
    x_text: Callable[[float], str] = figure
    y_text: Callable[[float], str] = figure

    @classmethod
    def around(
        cls,
        width: int,
        xs: Sequence[float],
        ys: Sequence[float],
        *,
        x_text: Callable[[float], str] = figure,
        y_text: Callable[[float], str] = figure,
        x_log: bool = True,
        y_log: bool = True,
    ) -> Frame:
        """A frame that holds all figures, with as much room on the left as its labels take."""
        height = _HEIGHTS[width]
        bottom = height - _BOTTOM
        y = Scale.over(ys, bottom, _TOP, may_be_log=y_log)
        left = 14 + _LETTER * max(len(y_text(t)) for t in y.ticks())
        return cls(width, height, Scale.over(xs, left, width - _RIGHT, may_be_log=x_log), y, x_text, y_text)

    def grid(self, x_title: str, y_title: str) -> Html:
        """Grid lines, tick labels and titles; the upright title stands above the axis, where it can be read."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        most = 6 if self.width == WIDE else 4
        parts = []
        for tick in self.y.ticks():
            at = self.y(tick)
            parts.append(el("path", d=f"M{left:.1f} {at:.1f}H{right:.1f}", class_="grid"))
            parts.append(el("text", self.y_text(tick), x=left - 6, y=at + 4, text_anchor="end"))
        for tick in self.x.ticks(most):
            at = self.x(tick)
            parts.append(el("path", d=f"M{at:.1f} {top:.1f}V{bottom:.1f}", class_="grid"))
            parts.append(el("text", self.x_text(tick), x=at, y=bottom + 17, text_anchor="middle"))
        parts.append(el("path", d=f"M{left:.1f} {bottom:.1f}H{right:.1f}", class_="axis"))
        scaled = " (log scale)"
        parts.append(
            el("text", x_title + scaled * self.x.is_log, x=(left + right) / 2, y=self.height - 6, class_="title")
        )
        parts.append(el("text", y_title + scaled * self.y.is_log, x=4, y=-6, class_="title up"))
        return el("g", *parts)

    def svg(self, *parts: object, label: str) -> Html:
        """The whole drawing; ``label`` is what it shows, for those who can't see it."""
        # 20 more above: the title of the upright axis.
        box = f"0 -20 {self.width} {self.height + 20}"
        return el("svg", *parts, viewBox=box, role="img", aria_label=label, class_="chart")


def drawn(make: Callable[[int], Html]) -> Html:
    """The same chart for a wide page and for a phone; the style sheet shows one of them."""
    wide, narrow = el("div", make(WIDE), class_="wide"), el("div", make(NARROW), class_="narrow")
    return joined(wide, narrow)


def mark(kind: Mark, x: float, y: float, *, tip: str, is_chosen: bool = False, bars: str = "") -> Html:
    """One trial: a filled circle is in budget, a hollow square out, a triangle undecided, a cross failed.

    ``bars``, the path of its intervals, shows while the mark is pointed at.
    """
    shapes = {
        Mark.IN: el("circle", cx=x, cy=y, r=4.5),
        Mark.OUT: el("rect", x=x - 3.8, y=y - 3.8, width=7.6, height=7.6),
        Mark.UNDECIDED: el("path", d=f"M{x:.1f} {y - 5:.1f}l5 8.6h-10z"),
        Mark.FAILED: el("path", d=f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"),
    }
    ring = el("circle", cx=x, cy=y, r=9, class_="ring") if is_chosen else None
    # Easier to hit than the mark itself, with a finger too.
    area = el("circle", cx=x, cy=y, r=12, class_="area")
    lines = el("path", d=bars, class_="bars") if bars else None
    return el("g", el("title", tip), lines, area, ring, shapes[kind], class_=f"mark {kind.value}")


def legend(*entries: tuple[Html, str]) -> Html:
    """What the marks of a chart mean, in a line."""
    return el("p", *(el("span", sign, text) for sign, text in entries), class_="legend")


def sign(kind: Mark, *, is_chosen: bool = False) -> Html:
    """A mark alone, for a legend."""
    shown = mark(kind, 10, 10, tip=kind.value, is_chosen=is_chosen)
    return el("svg", shown, viewBox="0 0 20 20", class_="sign", aria_hidden="true")


def line_sign(classes: str) -> Html:
    """A piece of a line, for a legend."""
    return el("svg", el("path", d="M1 10H19", class_=classes), viewBox="0 0 20 20", class_="sign", aria_hidden="true")


def polyline(points: Sequence[tuple[float, float]], classes: str) -> Html:
    """A line through ``points`` (positions)."""
    text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return el("path", d=f"M{text}", class_=classes)
