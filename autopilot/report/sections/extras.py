"""What a search found besides: fallbacks, ways out, what turned variants away, what stages cost, what was left out."""

from __future__ import annotations

from collections.abc import Mapping

from autopilot.needs import NotTried
from autopilot.profile import Measurement
from autopilot.report.content import Content
from autopilot.report.html import Html, el
from autopilot.report.sections.parts import number, section, table
from autopilot.report.words import figure, interval_of, short_recipe, span, title
from autopilot.result import Fallback, StageCost, speed_axis
from autopilot.words import DASH, counted, percent

# Stages as trials keep their times, in words.
_STAGES = {
    "build": "building the file",
    "load": "loading it in a fresh process",
    "profile": "timing requests",
    "energy": "reading energy",
    "evaluate": "scoring the quality",
}


def extra_sections(content: Content) -> list[Html]:
    """A table for each of these that this result has something of."""
    made = (_fallbacks(content), _ways_out(content), _turned_away(content), _not_tried(content), _stages(content))
    return [one for one in made if one is not None]


def _fallbacks(content: Content) -> Html | None:
    """What a service may degrade to, in order."""
    result = content.result
    if not result.fallbacks:
        return None
    speed = speed_axis(result.objectives)
    heads = ["place", "trial", "recipe", title(speed), "quality", "why"]
    rows = [_rung(place, rung, speed, content) for place, rung in enumerate(result.fallbacks, 1)]
    note = "What a service may degrade to under load, in this order: each is faster than the one before, and less good."
    return section("extra-fallbacks", "If the winner is too slow", table(heads, rows), note=note, is_wide=True)


def _rung(place: int, rung: Fallback, speed: str, content: Content) -> list[object]:
    found = rung.candidate
    why = rung.reason if rung.verified else f"{rung.reason} (by the search's figures alone)"
    shown = short_recipe(found.recipe, content.varied)
    figures = [_measured(found.measured, axis) for axis in (speed, "quality")]
    return [str(place), str(found.number if found.number is not None else DASH), shown, *figures, why]


def _measured(measured: Mapping[str, Measurement], axis: str) -> Html:
    found = interval_of(measured.get(axis))
    if found is None:
        return number(DASH)
    return number(figure(found.value), span(found) if found.low != found.high else None)


def _ways_out(content: Content) -> Html | None:
    """The limits that would have to give, each alone."""
    result = content.result
    if not result.relaxations:
        return None
    rows = []
    for r in result.relaxations:
        gives = ", ".join(f"{title(axis)} {figure(m.value)}" for axis, m in r.objective.items() if m.value is not None)
        sure = "" if r.verified else "by the search's figures alone"
        moved = number(
            r.needed.text, f"{percent(r.by)} {'higher' if r.limit.upper else 'lower'}" if r.limit.bound else ""
        )
        rows.append([el("code", r.limit.axis), r.limit.text, moved, f"trial {r.number}", number(gives or DASH, sure)])
    heads = ["limit", "now", "would have to be", "then admits", "which gives"]
    note = (
        "Each change by itself lets a variant keep the budget, or may, where that was not measured again; the smallest "
        "step first."
    )
    return section("extra-relaxations", "What would fit", table(heads, rows), note=note, is_wide=True)


def _turned_away(content: Content) -> Html | None:
    """How many variants each limit turned away."""
    if not content.result.binding:
        return None
    heads = ["limit", "break it", "break it and keep all others", "break no other, as far as they were measured"]
    rows = [[el("code", b.axis), str(b.out), str(b.sole), str(b.unknown)] for b in content.result.binding]
    note = (
        "How many variants certainly break each limit. A trial ends at the first limit that it breaks for certain, so "
        "that the others are often not known."
    )
    return section("extra-binding", "What turned variants away", table(heads, rows), note=note, is_wide=True)


def _stages(content: Content) -> Html | None:
    """What each stage of a trial takes, and how many trials it ended."""
    ran = [cost for cost in content.result.stages if cost.runs]
    if not ran:
        return None
    heads = ["stage", "trials that reached it", "takes (s)", "ended there"]
    note = (
        "A trial goes through these stages and ends where it fails or is certain to break a limit. The seconds are the "
        "mean of one trial, with what builds and scores from the cache took when they were made."
    )
    return section("extra-stages", "What each stage took", table(heads, map(_cost, ran)), note=note, is_wide=True)


def _cost(cost: StageCost) -> list[object]:
    ended = f"{cost.killed} ({percent(cost.kill_rate, 2)})" if cost.killed else "none"
    saved = f"{figure(cost.saved_s, 2)} s of {counted(cost.runs, 'trial')} from the cache" if cost.saved_s else None
    name = number(_STAGES.get(cost.stage, cost.stage))
    return [name, str(cost.runs), number(figure(cost.price_s, 2), saved), ended]


def _not_tried(content: Content) -> Html | None:
    """What was left out of the space, and what would bring it."""
    if not content.result.not_tried:
        return None
    rows = [_left_out(one) for one in content.result.not_tried]
    note = "Techniques and providers of the space that could not be used here, or had no turn before the search ended."
    heads = ["name", "why", "what would bring it"]
    return section("extra-not_tried", "Not tried", table(heads, rows), note=note, is_wide=True)


def _left_out(one: NotTried) -> list[object]:
    return [number(el("code", one.name), one.kind), one.reason, el("code", one.install) if one.install else ""]
