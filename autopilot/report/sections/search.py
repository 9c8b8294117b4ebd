"""What the search found: the trade-off, the history, the knobs."""

from __future__ import annotations

from autopilot.report.charts.knobs import MOST_BARS, knob_chart
from autopilot.report.charts.trials import history_chart, trade_off_axes, trade_off_chart
from autopilot.report.content import Content
from autopilot.report.html import Html, el
from autopilot.report.importance import FEWEST_TRIALS, Importance, importance
from autopilot.report.points import distinct, trade_off
from autopilot.report.sections.parts import section, table
from autopilot.report.words import figure, title
from autopilot.words import counted, percent


def trade_off_section(content: Content) -> Html | None:
    """The trade-off between the objective and the quality."""
    result = content.result
    chart = trade_off_chart(result)
    if chart is None:
        return None
    axes = trade_off_axes(result)
    left_out = len(distinct(result)) - len(trade_off(result, *axes))
    note = "Figures of the search, with their 95% intervals; point at a trial for its recipe."
    if left_out:
        note += f" {counted(left_out, 'trial')} ended before both were known."
    return section("pareto", f"{title(axes[0])} against {title(axes[1])}", chart, note=note)


def history_section(content: Content) -> Html | None:
    """The objective, trial by trial."""
    chart = history_chart(content.result)
    if chart is None:
        return None
    return section("history", "The search, trial by trial", chart, note="Trials without a figure stand on the axis.")


def knobs_sections(content: Content) -> list[Html]:
    """Which knobs mattered for the objective and for the quality."""
    result = content.result
    axes = dict.fromkeys((result.objective, "quality"))
    found = [(importance(result, axis), name) for axis, name in zip(axes, ("knobs", "knobs-quality"), strict=False)]
    shown = [(one, name) for one, name in found if one.knobs or one.axis == result.objective]
    return [_knobs(one, name, is_wide=len(shown) == 1) for one, name in shown]


def _knobs(found: Importance, name: str, *, is_wide: bool) -> Html:
    heading = f"What mattered for {title(found.axis)}"
    if not found.knobs:
        why = f"it takes {FEWEST_TRIALS} trials that differ; with a figure there are {found.trials}"
        return section(name, heading, el("p", f"Not shown: {why}.", class_="note"), is_wide=is_wide)
    note = (
        f"How much of the differences between {counted(found.trials, 'trial')} goes with a setting, beyond what chance "
        "gives; settings are compared between trials of the same techniques. Outlined: chance alone explains as much "
        "in more than 5% of cases."
    )
    more = el("details", el("summary", "Figures by value"), _values(found))
    return section(name, heading, knob_chart(found), more, note=note, is_wide=is_wide)


def _values(found: Importance) -> Html:
    say = percent if found.is_ratio else figure
    rows = []
    for knob in found.knobs[:MOST_BARS]:
        for value in knob.values:
            spread = say(value.low) if value.low == value.high else f"{say(value.low)} to {say(value.high)}"
            rows.append([el("code", knob.name), value.value, str(value.trials), say(value.median), spread])
    of = "of the baseline" if found.is_ratio else title(found.axis)
    return table(["setting", "value", "trials", f"median {of}", "range"], rows)
