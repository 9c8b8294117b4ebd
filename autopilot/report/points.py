"""Trials as points: what the trade-off and the history show, for the page and for notebooks alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from autopilot import plugins
from autopilot.budget import Judgement
from autopilot.profile import Interval
from autopilot.report.words import full_deployment, full_recipe, interval_of
from autopilot.result import StudyResult, TrialRecord, TrialState

# A result whose metric no trial tells the direction of is read as most metrics are.
_USUAL_DIRECTION = True


class Mark(StrEnum):
    """How a trial is drawn."""

    IN = "in"
    OUT = "out"
    UNDECIDED = "undecided"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Point:
    """One trial with figures on two axes; ``is_front``: no other trial beats it on both."""

    number: int
    id: str
    mark: Mark
    x: Interval
    y: Interval
    tip: str
    is_front: bool = False
    is_chosen: bool = False
    is_baseline: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One trial in the history. ``value`` is None where the objective wasn't measured; ``best`` is the best
    figure of a trial in budget up to here."""

    number: int
    mark: Mark
    value: Interval | None
    best: float | None
    tip: str
    is_chosen: bool = False


def distinct(result: StudyResult) -> list[TrialRecord]:
    """The trials by number, without those that repeat an earlier one."""
    return sorted((t for t in result.trials if t.state is not TrialState.DUPLICATE), key=lambda t: t.number)


def mark_of(trial: TrialRecord) -> Mark:
    """In, out, undecided or failed, by the last measurement; a trial without a verdict of its own is undecided."""
    if trial.state is TrialState.FAILED or trial.failed_again:
        return Mark.FAILED
    said = trial.last_verdict
    overall = said.overall if said is not None else Judgement.UNDECIDED
    if trial.spoilt_again and overall is Judgement.IN:  # by the search alone
        return Mark.UNDECIDED
    return {Judgement.IN: Mark.IN, Judgement.OUT: Mark.OUT}.get(overall, Mark.UNDECIDED)


def tip_of(trial: TrialRecord) -> str:
    """What a chart says of a trial when it is pointed at: number, verdict, recipe, deployment."""
    lines = [f"trial {trial.number}: {mark_of(trial).value}" + (f" ({trial.failure.value})" if trial.failure else "")]
    lines += [full_recipe(trial.variant.recipe), full_deployment(trial.variant.deployment)]
    return "\n".join(lines)


def quality_rises(result: StudyResult) -> bool:
    """Whether more of the metric is better, from what its drops say; True where no trial tells."""
    # The first trial is the baseline on the data of the search; the result's own figures of it may be of other data.
    found = [
        (interval_of(t.measured.get("quality")), interval_of(t.measured.get("quality_drop"))) for t in result.trials
    ]
    scores = [(own.value, drop.value) for own, drop in found if own is not None and drop is not None]
    if not scores:
        return _USUAL_DIRECTION
    base, lost = scores[0]
    return sum((base - own) * (drop - lost) for own, drop in scores) >= 0


def rises(result: StudyResult, axis: str) -> bool:
    """Whether more of ``axis`` is better."""
    limit = result.budget.limit(axis)
    if limit is not None:
        return not limit.upper
    if axis == "quality":
        return quality_rises(result)
    found = plugins.find_axis(axis)
    return found is not None and found[1].higher_is_better


def trade_off(result: StudyResult, x_axis: str, y_axis: str) -> tuple[Point, ...]:
    """Every trial with finite figures on both axes, the best of both marked, in the order of trials."""
    chosen = result.chosen
    points = []
    for trial in distinct(result):
        x, y = interval_of(trial.measured.get(x_axis)), interval_of(trial.measured.get(y_axis))
        if x is None or y is None or not (math.isfinite(x.value) and math.isfinite(y.value)):
            continue
        is_chosen = chosen is not None and chosen.number == trial.number
        given = trial.id == result.baseline.id
        points.append(
            Point(trial.number, trial.id, mark_of(trial), x, y, tip_of(trial), is_chosen=is_chosen, is_baseline=given)
        )
    front = front_of(points, rises(result, x_axis), rises(result, y_axis))
    return tuple(replace(p, is_front=p.number in front) for p in points)


def front_of(points: Sequence[Point], x_rises: bool, y_rises: bool) -> frozenset[int]:
    """Numbers of the points that none beats on both axes; of equals the earliest."""

    def gain(p: Point) -> tuple[float, float]:
        return (p.x.value if x_rises else -p.x.value), (p.y.value if y_rises else -p.y.value)

    best = -math.inf
    front = set()
    for p in sorted(points, key=lambda p: (-gain(p)[0], -gain(p)[1], p.number)):
        if gain(p)[1] > best:
            front.add(p.number)
            best = gain(p)[1]
    return frozenset(front)


def history(result: StudyResult) -> tuple[Step, ...]:
    """Every trial's objective in order, with the best in budget so far."""
    more = rises(result, result.objective)
    chosen = result.chosen
    best: float | None = None
    steps = []
    for trial in distinct(result):
        value, mark = interval_of(trial.measured.get(result.objective)), mark_of(trial)
        if value is not None and not math.isfinite(value.value):
            value = None
        if mark is Mark.IN and value is not None and (best is None or (value.value > best) == more):
            best = value.value
        is_chosen = chosen is not None and chosen.number == trial.number
        steps.append(Step(trial.number, mark, value, best, tip_of(trial), is_chosen))
    return tuple(steps)
