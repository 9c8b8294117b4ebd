"""The report's charts as plotly figures, for notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autopilot.budget import Limit
from autopilot.profile import Interval
from autopilot.report.charts.trials import trade_off_axes
from autopilot.report.html import escaped
from autopilot.report.importance import importance
from autopilot.report.points import Mark, history, rises, trade_off
from autopilot.report.words import JUDGED, judged_on, span, title
from autopilot.result import StudyResult
from autopilot.words import counted, percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Shape and colour: told apart without colours, and by colour-blind readers; seen on light and on dark ground.
_SYMBOLS = {Mark.IN: "circle", Mark.OUT: "square-open", Mark.UNDECIDED: "triangle-up-open", Mark.FAILED: "x-thin-open"}
_COLOURS = {Mark.IN: "#12937d", Mark.OUT: "#d55e00", Mark.UNDECIDED: "#8f6fc9", Mark.FAILED: "#7a8594"}
_NAMES = {Mark.IN: "in budget", Mark.OUT: "out", Mark.UNDECIDED: "undecided", Mark.FAILED: "failed"}
_LINE = "#4a86c5"


def plot_pareto(result: StudyResult, x: str | None = None, y: str | None = None) -> go.Figure:
    """Every trial with figures on both axes, with their intervals, and the front of the best as a line.

    Without ``x`` and ``y``: the objective against the quality.
    """
    import plotly.graph_objects as go

    usual = trade_off_axes(result)
    x, y = x or usual[0], y or usual[1]
    points = trade_off(result, x, y)
    figure = go.Figure()
    front = sorted((p for p in points if p.is_front), key=lambda p: p.x.value)
    figure.add_scatter(
        x=[p.x.value for p in front],
        y=[p.y.value for p in front],
        mode="lines",
        name="Pareto front",
        line={"color": _LINE, "dash": "dot"},
        hoverinfo="skip",
    )
    for kind in Mark:
        own = [p for p in points if p.mark is kind]
        if own:
            figure.add_scatter(
                x=[p.x.value for p in own],
                y=[p.y.value for p in own],
                error_x=_bars([p.x for p in own]),
                error_y=_bars([p.y for p in own]),
                mode="markers",
                name=_NAMES[kind],
                marker=_marker(kind, [p.is_chosen for p in own]),
                text=[_tip(p.tip) for p in own],
                hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
            )
    return _labelled(figure, _directed(result, x), _directed(result, y))


def plot_history(result: StudyResult) -> go.Figure:
    """The objective of every trial in order, and the best in budget so far."""
    import plotly.graph_objects as go

    steps = history(result)
    figure = go.Figure()
    figure.add_scatter(
        x=[s.number for s in steps],
        y=[s.best for s in steps],
        mode="lines",
        name="best in budget so far",
        line={"color": _LINE, "shape": "hv"},
        hoverinfo="skip",
    )
    for kind in Mark:
        own = [(s, s.value) for s in steps if s.mark is kind and s.value is not None]
        if own:
            figure.add_scatter(
                x=[s.number for s, _ in own],
                y=[v.value for _, v in own],
                error_y=_bars([v for _, v in own]),
                mode="markers",
                name=_NAMES[kind],
                marker=_marker(kind, [s.is_chosen for s, _ in own]),
                text=[_tip(s.tip) for s, _ in own],
                hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
            )
    return _labelled(figure, "trial", _directed(result, result.objective))


def plot_importance(result: StudyResult, axis: str | None = None) -> go.Figure:
    """What each knob explains of ``axis`` (the objective) beyond chance; bars that may be chance are pale."""
    import plotly.graph_objects as go

    found = importance(result, axis or result.objective)
    knobs = found.knobs[::-1]
    values = [
        "<br>".join(f"{escaped(v.value)}: median {v.median:.4g} ({counted(v.trials, 'trial')})" for v in k.values)
        for k in knobs
    ]
    figure = go.Figure()
    figure.add_bar(
        x=[k.explained for k in knobs],
        y=[str(escaped(k.name)) for k in knobs],
        orientation="h",
        marker={"color": _LINE, "opacity": [1.0 if k.is_clear else 0.3 for k in knobs]},
        text=[percent(k.explained, 2) + ("" if k.is_clear else " (may be chance)") for k in knobs],
        customdata=[[k.by_chance, text] for k, text in zip(knobs, values, strict=True)],
        hovertemplate="%{y}<br>as much by chance: %{customdata[0]:.1%}<br>%{customdata[1]}<extra></extra>",
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1.05])
    head = f"share of the differences between {counted(found.trials, 'trial')} in {title(found.axis)}"
    return _labelled(figure, head, "")


def plot_budget(result: StudyResult) -> go.Figure:
    """How much of each limit the chosen variant uses, with intervals: up to 100% less the margin is in budget."""
    import plotly.graph_objects as go

    shown = result.chosen or result.baseline
    figure = go.Figure()
    for limit in reversed(result.budget.limits):
        measured = shown.measured.get(limit.axis)
        found, judgement = judged_on(limit, measured), limit.judge(measured)
        used = _used(limit, found) if found is not None else None
        kind = {"in": Mark.IN, "out": Mark.OUT}.get(judgement.value, Mark.UNDECIDED)
        sign, word = JUDGED[judgement]
        name = f"{limit.axis} {limit.text}"
        figure.add_scatter(
            x=[used.value if used is not None else None],
            y=[str(escaped(f"{sign} {name}"))],
            error_x=_bars([used]) if used is not None else None,
            mode="markers",
            name=word,
            showlegend=False,
            marker=_marker(kind, [False]),
            text=[f"{escaped(name)}<br>{escaped(span(found, relative=limit.relative))}: {word}"],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_vline(x=1.0, line_dash="dash", line_color=_LINE)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return _labelled(figure, "share of the limit that is used", "")


def _used(limit: Limit, found: Interval) -> Interval:
    """A figure as the share of its limit: 1 is the limit itself, less is better."""
    bound = abs(limit.bound) or max(abs(found.low), abs(found.high)) or 1.0
    if limit.upper or found.value <= 0:
        shift = 1.0 if limit.bound == 0 else 0.0
        return Interval(found.value / bound + shift, found.low / bound + shift, found.high / bound + shift)
    return Interval(bound / found.value, bound / found.high, bound / found.low if found.low > 0 else math.inf)


def _bars(intervals: Sequence[Interval]) -> dict[str, Any]:
    """Error bars; a side without a bound has none."""

    def length(a: float, b: float) -> float | None:
        return b - a if math.isfinite(b - a) else None

    up = [length(i.value, i.high) for i in intervals]
    down = [length(i.low, i.value) for i in intervals]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1, "width": 0}


def _marker(kind: Mark, chosen: Sequence[bool]) -> dict[str, Any]:
    size = [15 if c else 9 for c in chosen]
    return {
        "symbol": _SYMBOLS[kind],
        "color": _COLOURS[kind],
        "size": size,
        "line": {"width": 2, "color": _COLOURS[kind]},
    }


def _tip(text: str) -> str:
    """Plotly's labels take a little markup: names must not bring their own."""
    return str(escaped(text)).replace("\n", "<br>")


def _directed(result: StudyResult, axis: str) -> str:
    return f"{title(axis)}, {'more' if rises(result, axis) else 'less'} is better"


def _labelled(figure: go.Figure, x_title: str, y_title: str) -> go.Figure:
    figure.update_layout(
        xaxis_title=x_title,
        yaxis_title=y_title,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        margin={"t": 40, "r": 20},
    )
    return figure
