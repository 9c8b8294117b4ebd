"""Charts of the trials: the trade-off with its front, and the search's history."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from autopilot.budget import Limit
from autopilot.profile import Interval
from autopilot.report.charts.frame import Frame, drawn, legend, line_sign, mark, polyline, sign
from autopilot.report.html import Html, el, joined
from autopilot.report.points import Mark, Point, Step, history, rises, trade_off
from autopilot.report.words import figure, title
from autopilot.result import StudyResult
from autopilot.words import counted

# Bounds are drawn as far as this many times the range of the values.
_NEAR = 3.0


def _key(used: Collection[Mark]) -> list[tuple[Html, str]]:
    """What the marks stand for that are ``used``. One that failed when it was measured again has figures too."""
    said = {Mark.IN: "in budget", Mark.OUT: "out", Mark.UNDECIDED: "undecided", Mark.FAILED: "failed"}
    return [(sign(kind), text) for kind, text in said.items() if kind in used]


def trade_off_axes(result: StudyResult) -> tuple[str, str]:
    """The objective against the quality; where the quality is the objective, the first latency limited or measured."""
    quality = ("quality", "quality_drop")
    if result.objective not in quality:
        return result.objective, "quality"
    others = [a for a in result.budget.axes if a not in quality]
    return (others[0] if others else "latency_p50_ms"), result.objective


def trade_off_chart(result: StudyResult) -> Html | None:
    """Every trial with both figures, intervals as bars, the front as a line; None without any."""
    x_axis, y_axis = trade_off_axes(result)
    points = trade_off(result, x_axis, y_axis)
    if not points:
        return None
    limits = [result.budget.limit(axis) for axis in (x_axis, y_axis)]
    better = [("more" if rises(result, axis) else "less") + " is better" for axis in (x_axis, y_axis)]
    titles = [f"{title(axis)}, {word}" for axis, word in zip((x_axis, y_axis), better, strict=True)]
    shown = _key({p.mark for p in points})
    ringed = next((p for p in points if p.is_chosen), None)
    if ringed is not None:
        shown.append((sign(ringed.mark, is_chosen=True), "winner" if result.best is not None else "nearest miss"))
    if sum(p.is_front for p in points) > 1:
        shown.append((line_sign("front"), "Pareto front"))

    sides = [(p, p.x) for p in points], [(p, p.y) for p in points]

    def make(width: int) -> Html:
        reach = (_reach([(i, _has_bars(p)) for p, i in pairs]) for pairs in sides)
        frame = Frame.around(width, *reach)
        body = [frame.grid(*titles), *_bounds(frame, limits), _front(frame, points)]
        body += [el("path", d=_bars(frame, p), class_=f"bars {p.mark.value}") for p in points if _has_bars(p)]
        body += [_trial(frame, p, (x_axis, y_axis)) for p in sorted(points, key=lambda p: (p.is_chosen, p.is_front))]
        return frame.svg(*body, label=f"{counted(len(points), 'trial')}: {title(x_axis)} against {title(y_axis)}")

    return joined(drawn(make), legend(*shown))


def _has_bars(p: Point) -> bool:
    """Whether its intervals are always drawn: of all trials at once they would hide each other."""
    return p.is_front or p.is_chosen or p.is_baseline


def _reach(intervals: Sequence[tuple[Interval, bool]]) -> list[float]:
    """Values and the bounds that are drawn, as far as they are near: a wide one must not squeeze others together."""
    values = [i.value for i, _ in intervals]
    low, high = min(values), max(values)
    room = _NEAR * ((high - low) or abs(high) or 1.0)
    bounds = [b for i, drawn in intervals if drawn for b in (i.low, i.high) if math.isfinite(b)]
    return [*values, *(min(max(b, low - room), high + room) for b in bounds)]


def _bounds(frame: Frame, limits: Sequence[Limit | None]) -> list[Html]:
    """Lines at absolute limits that lie in the picture."""
    x, y = ((limit.bound if limit is not None and not limit.relative else None) for limit in limits)
    found = []
    if x is not None and frame.x.low < x < frame.x.high:
        at = frame.x(x)
        found.append(el("path", d=f"M{at:.1f} {frame.y.end:.1f}V{frame.y.start:.1f}", class_="bound"))
        found.append(el("text", f"limit {figure(x)}", x=at + 4, y=frame.y.end + 10, class_="boundtext"))
    if y is not None and frame.y.low < y < frame.y.high:
        at = frame.y(y)
        found.append(el("path", d=f"M{frame.x.start:.1f} {at:.1f}H{frame.x.end:.1f}", class_="bound"))
        found.append(
            el("text", f"limit {figure(y)}", x=frame.x.end - 4, y=at - 4, text_anchor="end", class_="boundtext")
        )
    return found


def _front(frame: Frame, points: Sequence[Point]) -> Html | None:
    line = [(frame.x(p.x.value), frame.y(p.y.value)) for p in sorted(points, key=lambda p: p.x.value) if p.is_front]
    return polyline(line, "front") if len(line) > 1 else None


def _bars(frame: Frame, p: Point) -> str:
    x, y = frame.x(p.x.value), frame.y(p.y.value)
    across = f"M{frame.x(p.x.low):.1f} {y:.1f}H{frame.x(p.x.high):.1f}"
    up = f"M{x:.1f} {frame.y(p.y.low):.1f}V{frame.y(p.y.high):.1f}"
    return across + up


def _trial(frame: Frame, p: Point, axes: tuple[str, str]) -> Html:
    figures = [_said(axis, i) for axis, i in zip(axes, (p.x, p.y), strict=True)]
    x, y = frame.x(p.x.value), frame.y(p.y.value)
    tip = "\n".join([p.tip, *figures])
    made = mark(p.mark, x, y, tip=tip, is_chosen=p.is_chosen, bars="" if _has_bars(p) else _bars(frame, p))
    if not p.is_baseline:
        return made
    right = x < (frame.x.start + frame.x.end) / 2
    name = el("text", "baseline", x=x + (10 if right else -10), y=y - 8, text_anchor="start" if right else "end")
    return joined(made, name)


def _said(axis: str, interval: Interval) -> str:
    return f"{axis} {figure(interval.value)} ({figure(interval.low)} to {figure(interval.high)})"


def history_chart(result: StudyResult) -> Html | None:
    """The objective of every trial in order, the best in budget as a line; None where none was measured."""
    steps = history(result)
    values = [s.value for s in steps if s.value is not None]
    if not values:
        return None
    y_title = f"{title(result.objective)}, {'more' if rises(result, result.objective) else 'less'} is better"
    shown = _key({s.mark for s in steps})
    if any(s.best is not None for s in steps):
        shown.append((line_sign("best"), "best in budget so far"))

    def make(width: int) -> Html:
        frame = Frame.around(width, [s.number for s in steps], [v.value for v in values], x_log=False)
        body = [
            frame.grid("trial", y_title),
            _best_line(frame, steps),
            *(_step(frame, s, result.objective) for s in steps),
        ]
        return frame.svg(*body, label=f"{title(result.objective)} of {counted(len(values), 'trial')} in order")

    return joined(drawn(make), legend(*shown))


def _step(frame: Frame, step: Step, axis: str) -> Html:
    """A trial without a figure stands on the axis."""
    y = frame.y(step.value.value) if step.value is not None else frame.y.start - 5
    tip = step.tip if step.value is None else f"{step.tip}\n{_said(axis, step.value)}"
    return mark(step.mark, frame.x(step.number), y, tip=tip, is_chosen=step.is_chosen)


def _best_line(frame: Frame, steps: Sequence[Step]) -> Html | None:
    line: list[tuple[float, float]] = []
    for step in steps:
        if step.best is None:
            continue
        x, y = frame.x(step.number), frame.y(step.best)
        if line and line[-1][1] != y:
            line.append((x, line[-1][1]))
        line.append((x, y))
    return polyline(line, "best") if len(line) > 1 else None
