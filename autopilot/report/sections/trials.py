"""All trials as one table that sorts and filters, and what failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from autopilot.profile import Measurement
from autopilot.report.content import Content
from autopilot.report.html import Html, el, joined
from autopilot.report.points import Mark, mark_of
from autopilot.report.sections.parts import section, table
from autopilot.report.words import (
    figure,
    full_deployment,
    full_recipe,
    interval_of,
    settings,
    short_deployment,
    span,
    title,
)
from autopilot.result import StudyResult, TrialRecord, TrialState
from autopilot.words import DASH, counted, percent

# Axes beside the limited ones that tell trials apart.
_USUAL = ("quality", "size_mb")
_SIGNS = {Mark.IN: "✓", Mark.OUT: "✗", Mark.UNDECIDED: "?", Mark.FAILED: "×"}


def trials_section(content: Content) -> Html:
    """One row a trial; the page's script makes it sort and filter, and it is whole without."""
    result = content.result
    axes = list(dict.fromkeys([result.objective, *result.budget.axes, *_USUAL]))
    axes = [a for a in axes if any(interval_of(t.measured.get(a)) is not None for t in result.trials)]
    heads = ["trial", "verdict", "variant", *axes, "seconds", "ended after"]
    head = el(
        "tr", *(el("th", title(h) if h in axes else h, scope="col", title=h if h in axes else None) for h in heads)
    )
    varied = content.varied
    body = [_row(content, trial, axes, varied) for trial in result.trials]
    whole = el("table", el("thead", head), el("tbody", *body), class_="trials", id="trials-table")
    controls = el(
        "p",
        el("label", "Filter ", el("input", type="search", id="trials-filter", placeholder="recipe, setting, reason")),
        el("label", "Verdict ", _choice(result)),
        el("span", id="trials-count", role="status"),
        class_="controls",
        hidden=True,
        id="trials-controls",
    )
    note = "Settings that differ between trials; point at a variant for all of them. Figures are those of the search."
    scroll = el("div", whole, class_="scroll", tabindex=0, role="region", aria_label="all trials")
    return section("trials", _heading(len(result.trials)), controls, scroll, note=note, is_wide=True)


def _heading(trials: int) -> str:
    return f"All {counted(trials, 'trial')}" if trials != 1 else "The only trial"


def _choice(result: StudyResult) -> Html:
    words = dict.fromkeys(_word(t) for t in result.trials)
    options = [el("option", "all", value="")] + [el("option", word, value=word) for word in words]
    return el("select", *options, id="trials-verdict")


def _word(trial: TrialRecord) -> str:
    return "repeated" if trial.state is TrialState.DUPLICATE else mark_of(trial).value


def _row(content: Content, trial: TrialRecord, axes: list[str], varied: Mapping[str, frozenset[str]]) -> Html:
    mark, word = mark_of(trial), _word(trial)
    sign = "=" if word == "repeated" else _SIGNS[mark]
    kind = "not_measurable" if word == "repeated" else mark.value
    shown = el("span", el("span", sign, aria_hidden="true"), " ", word, class_=f"verdict {kind}")
    recipe, deployment = trial.variant.recipe, trial.variant.deployment
    seconds = sum(s for stage, s in trial.seconds.items() if not stage.endswith("_saved"))
    reason = trial.reason or (trial.failure.value if trial.failure else "")
    is_chosen = content.chosen is not None and content.chosen.number == trial.number
    return el(
        "tr",
        el("th", str(trial.number), "★" if is_chosen else None, scope="row", data_v=float(trial.number)),
        el("td", shown, data_v=word),
        el("td", _variant(content, trial, varied), title=f"{full_recipe(recipe)}; {full_deployment(deployment)}"),
        *(_figure(content, axis, trial.measured.get(axis)) for axis in axes),
        el("td", f"{seconds:.1f}", data_v=float(seconds), class_="n"),
        el("td", trial.stage, el("small", reason) if reason else None),
        class_="chosen" if is_chosen else None,
        data_verdict=word,
    )


def _variant(content: Content, trial: TrialRecord, varied: Mapping[str, frozenset[str]]) -> Html:
    """The techniques, below them what tells this variant from others."""
    recipe, deployment = trial.variant.recipe, trial.variant.deployment
    techniques = ", then ".join(step.technique for step in recipe.steps) or "as given"
    several = len(recipe.steps) > 1
    told = [
        (step, settings((k, v) for k, v in step.params if k in varied.get(step.technique, ()))) for step in recipe.steps
    ]
    lines = [f"{step.technique}: {text}" if several else text for step, text in told if text]
    changed = short_deployment(deployment, content.result.baseline.deployment)
    if not changed.startswith("as "):
        lines.append(f"deployment: {changed}")
    return joined(techniques, *(el("small", line) for line in lines))


def _figure(content: Content, axis: str, measured: Measurement | None) -> Html:
    """Value with its interval below it; the ratio where the limit is one."""
    limit = content.result.budget.limit(axis)
    relative = limit is not None and limit.relative and measured is not None and measured.ratio is not None
    found = measured.ratio if relative and measured is not None else interval_of(measured)
    if found is None:
        return el("td", DASH, class_="n")
    value = percent(found.value) if relative else figure(found.value)
    bounds = el("small", span(found, relative=relative, digits=3)) if found.low != found.high else None
    return el("td", value, bounds, class_="n", data_v=float(found.value))


def failures_section(content: Content) -> Html | None:
    """Failed trials by class, with what each said last; None where none failed."""
    by: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in content.result.trials:
        if trial.failure is not None:
            by[trial.failure.value].append(trial)
    if not by:
        return None
    rows = [[el("code", name), str(len(found)), _failed(found)] for name, found in sorted(by.items(), key=_count)]
    return section("failures", "Failures by class", table(["class", "trials", "what happened"], rows), is_wide=True)


def _count(entry: tuple[str, list[TrialRecord]]) -> tuple[int, str]:
    return -len(entry[1]), entry[0]


def _failed(trials: list[TrialRecord]) -> Html:
    items = []
    for trial in trials:
        said = joined(el("b", f"trial {trial.number}"), ": ", trial.reason or "no reason recorded")
        log = el("details", el("summary", "last lines"), el("pre", trial.log)) if trial.log else None
        items.append(el("li", said, log))
    return el("ul", *items)
