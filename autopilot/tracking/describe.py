"""Texts of the registry's pages: what a version is, why it was chosen, what it was found to be. Pure."""

from __future__ import annotations

from autopilot.budget import Limit
from autopilot.profile import Measurement
from autopilot.result import Candidate, StudyResult, recipe_text, speed_axis
from autopilot.words import counted, percent, times

_VERDICTS = {
    "in": "in budget",
    "out": "not in budget",
    "undecided": "undecided: an interval reaches over a limit",
    "not_measurable": "a limit could not be measured",
}


def model_text(result: StudyResult) -> str:
    """Of a registered model: what its versions and aliases are."""
    return (
        f"Variants of one model that the study {result.name} found. `champion` is the one to serve, `previous` "
        "the champion before it, `fallback-1`, `fallback-2`, … are faster ones that a service may degrade to."
    )


def best_why(result: StudyResult, chosen: Candidate) -> str:
    """Why the winner was chosen."""
    text = f"the best {' and '.join(result.objectives)} of {counted(len(result.trials), 'trial')}"
    if chosen.speedup:
        s, axis = chosen.speedup, speed_axis(result.objectives)
        word = "as fast" if axis.startswith("latency_") else "as good"
        text += f"; {axis}: {s.value:.2f} times {word} as {result.baseline_choice.text} ({times(s.low, s.high)})"
    return f"{text}. The budget: {result.rationale}" if result.rationale else f"{text}."


def describe(result: StudyResult, chosen: Candidate, why: str) -> str:
    """A version's description, in Markdown: what, why, verdict."""
    d = chosen.deployment
    runs = ", ".join(
        [f"{d.provider}, {counted(d.threads, 'thread')}, batch {d.batch}", *(f"{k} {v}" for k, v in d.options)]
    )
    verdict = _VERDICTS[chosen.verdict.overall.value] if chosen.verdict else "not judged"
    version = "" if result.budget_version is None else f" (budget version {result.budget_version})"
    rows = "\n".join(_row(limit, chosen) for limit in result.budget.limits)
    return (
        f"**What:** {recipe_text(chosen.recipe)}; runs on {runs}\n\n**Why:** {why}\n\n"
        f"**Verdict:** {verdict}{version}\n\n| limit | measured (95% interval) | verdict |\n| --- | --- | --- |\n{rows}"
    )


def _row(limit: Limit, chosen: Candidate) -> str:
    judged = chosen.verdict.per_limit.get(limit.axis) if chosen.verdict else None
    figure = _figure(chosen.measured.get(limit.axis), limit)
    return f"| {limit.axis} {limit.text} | {figure} | {judged.value if judged else 'not judged'} |"


def _figure(measured: Measurement | None, limit: Limit) -> str:
    if measured is None or measured.value is None:
        return "not measured"
    if limit.relative and measured.ratio is not None:
        r = measured.ratio
        return f"{percent(r.value)} of the baseline ({percent(r.low)}..{percent(r.high)})"
    if measured.low is None or measured.high is None or measured.low == measured.high:
        return f"{measured.value:.4g}"
    return f"{measured.value:.4g} ({measured.low:.4g}..{measured.high:.4g})"
