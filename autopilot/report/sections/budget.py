"""The budget as gauges, and the baseline beside the winner."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autopilot.budget import Judgement, Limit
from autopilot.profile import Measurement
from autopilot.report.charts.gauge import gauge
from autopilot.report.content import Content
from autopilot.report.html import Html, el, joined
from autopilot.report.sections.parts import facts, number, section, table, verdict
from autopilot.report.words import figure, full_deployment, full_recipe, interval_of, judged_on, short_deployment, span
from autopilot.words import DASH, counted, percent

# Axes that most readers ask for; the others are folded away.
_ALWAYS = ("quality", "latency_p50_ms", "latency_p99_ms", "throughput_rps", "peak_memory_mb", "size_mb", "load_s")
_SCORES = ("quality", "quality_drop")


def budget_section(content: Content) -> Html:
    """One row a limit: gauge, limit, figure, interval, margin left, verdict."""
    result = content.result
    shown = content.chosen or result.baseline
    who = content.chosen_name if content.chosen is not None else "baseline"
    rows = [_row(limit, shown.measured.get(limit.axis)) for limit in result.budget.limits]
    note = f"Figures of the {who}. A limit is kept when the whole 95% interval lies in the shaded range; "
    kept = [limit for limit in result.budget.limits if limit.margin]
    note += "the darker strip is the safety margin that is kept free." if kept else "no safety margin is kept free."
    heads = ["limit", "", "value", "95% interval", "margin left", "verdict"]
    reasons = [
        el("p", f"{limit.axis} is not measurable: {m.reason or 'no reason recorded'}.", class_="note")
        for limit in result.budget.limits
        if (m := shown.measured.get(limit.axis)) is not None and m.value is None
    ]
    body = table(heads, rows, classes="budget")
    return section("budget", "The budget", body, *reasons, note=note, is_wide=True)


def _row(limit: Limit, measured: Measurement | None) -> list[object]:
    found, judgement = judged_on(limit, measured), limit.judge(measured)
    name = joined(
        el("code", limit.axis), el("small", limit.text + (f", margin {percent(limit.margin)}" * bool(limit.margin)))
    )
    say = percent if limit.relative else figure
    value = say(found.value) if found is not None else DASH
    told = [figure(measured.value)] if limit.relative and measured is not None and found is not None else []
    if measured is not None and measured.n > 1:
        told.append(counted(measured.n, "sample" if limit.axis in _SCORES else "reading"))
    between = span(found, relative=limit.relative)
    if measured is not None and measured.n == 1 and found is not None and found.low == found.high:
        between = "one reading"
    return [
        el("span", name, class_="axisname"),
        gauge(limit, found, judgement),
        number(value, ", ".join(told)),
        between,
        margin_left(limit, measured),
        verdict(judgement),
    ]


def margin_left(limit: Limit, measured: Measurement | None) -> str:
    """How far the interval's unlucky end is from the limit less its margin, as a share of the limit.

    >>> margin_left(Limit("size_mb", 2.0), Measurement("size_mb", 1.5, 1.5, 1.6, 1))
    '20%'
    """
    found = limit.interval(measured)
    if found is None or math.isnan(found.value):
        return DASH
    unlucky = found.high if limit.upper else found.low
    if math.isinf(unlucky):
        return "no bound"
    left = (limit.effective - unlucky if limit.upper else unlucky - limit.effective) / (abs(limit.bound) or 1.0)
    if left >= 0:
        return percent(left)
    sure = limit.judge(measured) is Judgement.OUT
    return f"missed by {percent(-left)}" if sure else f"short by {percent(-left)}"


def comparison_section(content: Content) -> Html | None:
    """Baseline beside the chosen variant: every axis that both have, then what they consist of."""
    result, chosen = content.result, content.chosen
    if chosen is None:
        return None
    base = result.baseline
    axes = [a for a in _order(content, chosen.measured) if interval_of(chosen.measured[a]) is not None]
    name = content.chosen_name
    rows = {axis: _compared(axis, base.measured.get(axis), chosen.measured[axis], content) for axis in axes}
    first = [a for a in axes if a in _ALWAYS or a in result.budget.axes or a == result.objective]
    heads = ["axis", "baseline", name, "ratio"]
    missing = sorted(a for a, m in chosen.measured.items() if m.value is None and a not in result.budget.axes)
    gone = el("p", f"Not measured here: {', '.join(missing)}.", class_="note") if missing else None
    note = "Both were measured again in fresh processes, in alternation, on data the search did not see."
    if not content.readings.verified:
        note = "The figures that the verdict rests on."
    others = [a for a in axes if a not in first]
    if content.is_baseline:  # nothing beside it
        heads = ["axis", "value"]
    body, rest = (table(heads, [rows[a][: len(heads)] for a in part], classes="compared") for part in (first, others))
    more = el("details", el("summary", counted(len(others), "more axis", "more axes")), rest, gone)
    parts = (body, more if others else gone, _facts(content))
    own = result.baseline_choice.text
    heading = own[0].upper() + own[1:] if content.is_baseline else f"Baseline and {name}"
    return section("compared", heading, *parts, note=note, is_wide=True)


def _order(content: Content, measured: Mapping[str, Measurement]) -> list[str]:
    """The objective, limited axes, the quality, then the others by name."""
    first = [content.result.objective, *content.result.budget.axes, "quality"]
    return [a for a in dict.fromkeys([*first, *sorted(measured)]) if a in measured]


def _compared(axis: str, base: Measurement | None, own: Measurement, content: Content) -> list[object]:
    limited = axis in content.result.budget.axes or axis == content.result.objective
    name = el("b", el("code", axis)) if limited else el("code", axis)
    ratio = own.ratio if axis != "quality_drop" else None
    change = (
        number(percent(ratio.value), span(ratio, relative=True) if ratio.low != ratio.high else None) if ratio else ""
    )
    return [el("span", name, title=own.how or None), _figure(base), _figure(own), change]


def _figure(measured: Measurement | None) -> Html:
    found = interval_of(measured)
    if found is None:
        return number(DASH)
    return number(figure(found.value), span(found) if found.low != found.high else None)


def _facts(content: Content) -> Html:
    """What both consist of: recipe, deployment, file."""
    assert content.chosen is not None
    name, chosen, base = content.chosen_name, content.chosen, content.result.baseline
    changed = short_deployment(chosen.deployment, base.deployment)
    if content.is_baseline:
        rows: list[tuple[str, object]] = [
            ("deployment", full_deployment(base.deployment)),
            ("sha256", el("code", base.sha256)),
        ]
        return facts(rows)
    rows = [
        (f"recipe of the {name}", full_recipe(chosen.recipe)),
        *([] if content.result.baseline_choice.as_given else [("recipe of the baseline", full_recipe(base.recipe))]),
        ("deployment of the baseline", full_deployment(base.deployment)),
        (f"deployment of the {name}", changed if changed.startswith("as ") else f"the same, but {changed}"),
        (f"sha256 of the {name}", el("code", chosen.sha256)),
        ("sha256 of the baseline", el("code", base.sha256)),
    ]
    return facts(rows)
