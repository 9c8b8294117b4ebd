"""The verdict: in a sentence, in four figures, and why."""

from __future__ import annotations

from autopilot.budget import Judgement
from autopilot.report.content import Content
from autopilot.report.html import Html, el, joined
from autopilot.report.words import duration, figure, interval_of, short_deployment, short_recipe, span, title
from autopilot.result import Status, is_cut_off, nothing_text
from autopilot.words import counted, times

_BANNERS = {
    Status.IN_BUDGET: ("✓", "in budget", "in"),
    Status.NO_FIT: ("✗", "nothing fits", "out"),
    Status.UNDECIDED: ("?", "undecided", "undecided"),
}


def header(content: Content) -> Html:
    """Name, verdict and the sentence that a reader in a hurry needs."""
    result = content.result
    sign, word, kind = _BANNERS[result.status]
    pill = el("span", el("span", sign, aria_hidden="true"), " ", word, class_=f"pill {kind}")
    parts: list[Html | None] = [el("p", "autopilot report", class_="kicker"), el("h1", result.name, " ", pill)]
    parts.append(el("p", sentence(content), class_="lead"))
    parts.append(_tiles(content))
    chosen = content.chosen
    if chosen is not None:
        recipe = short_recipe(chosen.recipe, content.varied)
        deployment = short_deployment(chosen.deployment, result.baseline.deployment)
        what = joined(el("b", "Recipe: "), recipe, ". ", el("b", "Deployment: "), deployment, ".")
        parts.append(el("p", what, class_="recipe"))
    if result.explanation:
        parts += _explained(content)
    if result.rationale:
        version = f" (version {result.budget_version})" if result.budget_version is not None else ""
        parts.append(el("p", f"Why this budget{version}: {result.rationale}", class_="note"))
    return el("header", *parts)


def _explained(content: Content) -> list[Html]:
    """Why it ended as it did; several ways out become a list in the place of a sentence of many lines."""
    result = content.result
    ways = [r.text for r in result.relaxations]
    before, found, after = result.explanation.partition("; ".join(ways) + ".") if len(ways) > 1 else ("", "", "")
    if not found:
        return [el("p", result.explanation, class_="note")]
    parts: list[Html] = [el("p", before.rstrip(), class_="note"), el("ul", *(el("li", w) for w in ways), class_="note")]
    return [*parts, el("p", after.strip(), class_="note")] if after.strip() else parts


def sentence(content: Content) -> str:
    """The verdict in one sentence or two."""
    result, chosen = content.result, content.chosen
    limits = len(result.budget.limits)
    every = "its one limit" if limits == 1 else f"all {counted(limits, 'limit')}"
    if result.is_too_short:
        when = "during the first trial" if is_cut_off(result.ended) else "when the baseline was measured"
        return f"Undecided: {nothing_text(result.ended)}, since time was up {when}."
    if chosen is None:
        return "No variant could be measured to the end, so there is no verdict on any."
    baseline = result.baseline_choice.text
    who = baseline if content.is_baseline else f"trial {chosen.number}"
    if result.status is Status.IN_BUDGET:
        if content.is_baseline:
            return f"The budget is met by {baseline}: it keeps {every}, and nothing tried is certainly better."
        return f"The budget is met: {who} keeps {every}{_won(content)}."
    broken = _axes(content, Judgement.OUT)
    doubtful = _axes(content, Judgement.UNDECIDED)
    unknown = _axes(content, Judgement.NOT_MEASURABLE)
    said = [f"breaks {broken}"] if broken else []
    said += [f"is too near the limit to tell on {doubtful}"] if doubtful else []
    said += [f"has no figure for {unknown} on this machine"] if unknown else []
    rest = ", and it ".join(said) or "was not measured again, so it is not confirmed"
    if result.status is Status.NO_FIT:
        return f"Nothing that was tried fits the budget. The nearest miss, {who}, {rest}."
    return f"Undecided: nothing is shown to keep {every}. The nearest, {who}, {rest}."


def _axes(content: Content, judgement: Judgement) -> str:
    verdict = content.chosen.verdict if content.chosen is not None else None
    found = [a for a, j in verdict.per_limit.items() if j is judgement] if verdict is not None else []
    limits = [content.result.budget.limit(axis) for axis in found]
    said = [f"{a} ({x.text})" if x is not None else a for a, x in zip(found, limits, strict=True)]
    return " and ".join(part for part in (", ".join(said[:-1]), *said[-1:]) if part)


def _won(content: Content) -> str:
    """What was won, as times as fast (or as good) as the baseline."""
    speedup = content.chosen.speedup if content.chosen is not None else None
    if speedup is None:
        return ""
    word = "fast" if content.result.objective.startswith("latency_") else "good"
    between = f", {times(speedup.low, speedup.high, ' to ')}" if speedup.low != speedup.high else ""
    return f" and is {speedup.value:.2f} times as {word} as the baseline ({content.result.objective}{between})"


def _tiles(content: Content) -> Html:
    """The figures that are asked for first."""
    result, chosen = content.result, content.chosen
    shown: list[tuple[str, str, str]] = []
    if chosen is not None:
        speedup = chosen.speedup
        if speedup is not None:
            shown.append(("against the baseline", f"{speedup.value:.2f}×", times(speedup.low, speedup.high, " to ")))
        for axis in dict.fromkeys((result.objective, "quality", "size_mb")):
            found, base = interval_of(chosen.measured.get(axis)), interval_of(result.baseline.measured.get(axis))
            if found is not None:
                beside = f"baseline {figure(base.value)}" if base is not None else span(found)
                shown.append((title(axis), figure(found.value), beside))
    shown.append(
        ("trials" if len(result.trials) != 1 else "trial", str(len(result.trials)), f"in {duration(result.elapsed_s)}")
    )
    tiles = [el("div", el("dt", name), el("dd", value, el("small", below))) for name, value, below in shown]
    return el("dl", *tiles, class_="tiles")
