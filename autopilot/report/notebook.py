"""A study's display in a notebook: the verdict and the budget, in the notebook's own style."""

from __future__ import annotations

from autopilot.report.content import Content
from autopilot.report.html import Html, el, joined
from autopilot.report.sections.budget import margin_left
from autopilot.report.sections.verdict import sentence
from autopilot.report.words import JUDGED, duration, figure, full_deployment, full_recipe, judged_on, span
from autopilot.words import counted, percent


def render_notebook(content: Content) -> str:
    """Markup without a style of its own, so that it reads in light and in dark notebooks."""
    result, chosen = content.result, content.chosen
    parts: list[Html] = [
        el("p", el("b", result.name), ": ", sentence(content)),
        _limits(content),
        el("p", el("small", f"{counted(len(result.trials), 'trial')} in {duration(result.elapsed_s)}.")),
    ]
    if chosen is not None:
        what = joined(el("b", "recipe "), full_recipe(chosen.recipe))
        how = joined(el("b", "deployment "), full_deployment(chosen.deployment))
        parts.insert(2, el("p", what, el("br"), how))
    return str(el("div", *parts))


def _limits(content: Content) -> Html:
    shown = content.chosen or content.result.baseline
    heads = [
        "limit",
        content.chosen_name if content.chosen is not None else "baseline",
        "95% interval",
        "margin left",
        "",
    ]
    rows = []
    for limit in content.result.budget.limits:
        measured = shown.measured.get(limit.axis)
        found = judged_on(limit, measured)
        say = percent if limit.relative else figure
        value = say(found.value) if found is not None else "–"
        word = " ".join(JUDGED[limit.judge(measured)])
        cells = (
            f"{limit.axis} {limit.text}",
            value,
            span(found, relative=limit.relative),
            margin_left(limit, measured),
            word,
        )
        rows.append(el("tr", *(el("td", c, style="text-align:left") for c in cells)))
    head = el("tr", *(el("th", h, scope="col", style="text-align:left") for h in heads))
    return el("table", el("thead", head), el("tbody", *rows))
