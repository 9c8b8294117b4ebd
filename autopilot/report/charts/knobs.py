"""What each knob explains, as bars."""

from __future__ import annotations

from collections.abc import Callable

from autopilot.report.charts.frame import WIDE, drawn
from autopilot.report.html import Html, el
from autopilot.report.importance import Importance, Knob
from autopilot.report.words import figure, title
from autopilot.words import counted, percent

# More bars than this say that nothing else mattered.
MOST_BARS = 8
_ROW, _TEXT = 38, 15


def knob_chart(found: Importance) -> Html:
    """One bar a knob: its name above it, the share it explains; outlined where chance may have made it."""
    shown = found.knobs[:MOST_BARS]
    say = percent if found.is_ratio else figure
    label = f"share of the differences in {title(found.axis)} that each knob explains"

    def make(width: int) -> Html:
        room = width - 60
        rows = [_bar(knob, i * _ROW, room, tip=_tip(knob, say), few=width != WIDE) for i, knob in enumerate(shown)]
        box = f"0 0 {width} {_ROW * len(shown) + 4}"
        return el("svg", *rows, viewBox=box, role="img", aria_label=label, class_="chart")

    return drawn(make)


def _tip(knob: Knob, say: Callable[[float], str]) -> str:
    rows = [f"{v.value}: median {say(v.median)} ({counted(v.trials, 'trial')})" for v in knob.values]
    return "\n".join([f"{knob.name}: chance explains as much in {percent(knob.by_chance, 2)} of cases", *rows])


def _bar(knob: Knob, top: float, room: float, *, tip: str, few: bool) -> Html:
    """``few``: there is room for few words."""
    length = max(2.0, room * knob.explained)
    kind = "bar" if knob.is_clear else "bar unclear"
    said = "" if knob.is_clear else (", chance?" if few else ", may be chance")
    name = el(
        "text", knob.name, el("tspan", f"  {counted(knob.trials, 'trial')}{said}", class_="faint"), x=0, y=top + _TEXT
    )
    bar = el("rect", x=0.5, y=top + _TEXT + 7, width=length, height=9, rx=2, class_=kind)
    share = el("text", percent(knob.explained, 2), x=length + 8, y=top + _TEXT + 16, class_="value")
    return el("g", el("title", tip), name, bar, share, class_="tipped")
