"""Lines about trials for those who watch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autopilot.budget import Budget, Judgement, Limit
from autopilot.profile import Control, Measurement
from autopilot.recipe import Deployment, Recipe, Variant
from autopilot.result import TrialRecord
from autopilot.search.finalists import line_up
from autopilot.search.ranking import Ranking
from autopilot.space import SearchSpace
from autopilot.words import counted, percent

# Said by the score itself, or 0 by definition.
_OWN = ("quality", "quality_drop")


def recipe_text(recipe: Recipe, space: SearchSpace) -> str:
    """The techniques with those parameters that aren't the space's defaults; result.json has them all."""
    said = []
    for step in recipe.steps:
        domains = space.techniques[step.technique][1] if step.technique in space.techniques else {}
        unusual = [f"{k}={v}" for k, v in step.params if k not in domains or domains[k].default != v]
        said.append(f"{step.technique}({', '.join(unusual)})" if unusual else step.technique)
    return " > ".join(said) or "the model as given"


def variant_text(variant: Variant, space: SearchSpace) -> str:
    """Recipe and deployment of a trial as progress tells them, in one line."""
    own = variant.deployment
    # The baseline may be of a provider that the space doesn't have.
    usual = space.default_deployment(own.provider) if own.provider in space.providers else own
    return f"{recipe_text(variant.recipe, space)} on {deployment_text(own, usual)}"


def deployment_text(deployment: Deployment, usual: Deployment) -> str:
    """Provider, threads, instances, a batch above 1 and its delay, and the options that aren't ``usual``."""
    common = dict(usual.options)
    said = [f"{k}={v}" for k, v in deployment.options if common.get(k) != v]
    batch = [f"batch {deployment.batch}"] if deployment.batch != 1 else []
    threads = counted(deployment.threads, "thread")
    instances = [f"{deployment.instances} instances"] if deployment.instances != 1 else []
    delay = [f"up to {deployment.max_delay_ms:g} ms of delay"] if deployment.max_delay_ms else []
    return ", ".join([deployment.provider, *instances, threads, *batch, *delay, *said])


def baseline_text(
    measured: Mapping[str, Measurement],
    metric: str,
    ranking: Ranking,
    budget: Budget,
    name: str = "the model as given",
) -> str:
    """The baseline in one line: a score that is no good shows wrong preprocessing before hours are spent."""
    axes = dict.fromkeys([*ranking.axes, *budget.axes])
    said = [f"{axis} {_figure(measured[axis], None)}" for axis in axes if axis in measured and axis not in _OWN]
    quality = measured.get("quality")
    if quality is not None and quality.value is not None:
        said.insert(0, f"{metric} {quality.value:.4g}")
    return f"{name}: {', '.join(said)}"


def control_text(control: Control) -> str:
    """What the A/A reading found, in one line."""
    median, p99 = percent(control.p50_percent / 100, 2), percent(control.p99_percent / 100, 2)
    processes = counted(control.pairs + 1, "process", "processes")
    return f"the same model in {processes}: medians up to {median} apart, p99 up to {p99}; every interval carries that"


def best_text(records: Sequence[TrialRecord], ranking: Ranking, budget: Budget, space: SearchSpace) -> str | None:
    """The best variant so far against every limit, in one line; None while nothing fits or may fit."""
    queue = line_up(records, ranking)
    if not queue:
        return None
    best = queue[0]
    figures = [
        f"{limit.axis} {_figure(best.measured.get(limit.axis), limit)} ({_bound(limit)})" for limit in budget.limits
    ]
    others = [axis for axis in ranking.axes if axis not in budget.axes]
    figures = [*(f"{axis} {_figure(best.measured.get(axis), None)}" for axis in others), *figures]
    sure = best.verdict is not None and best.verdict.overall is Judgement.IN
    word = "" if sure else ", not decided yet"
    return f"trial {best.number}{word}, {recipe_text(best.variant.recipe, space)}: {', '.join(figures)}"


def against_budget(record: TrialRecord, budget: Budget) -> str:
    """What was measured of every limited axis, and its judgement, in one line; or how the trial failed."""
    if record.verdict is None:
        return record.failure.value if record.failure else record.state.value
    said = []
    for limit in budget.limits:
        measured, judgement = record.measured.get(limit.axis), record.verdict.per_limit.get(limit.axis)
        if judgement is not None and (measured is not None or judgement is Judgement.OUT):
            said.append(f"{limit.axis} {_figure(measured, limit)} ({judgement.value.replace('_', ' ')})")
    return ", ".join(said)


def _bound(limit: Limit) -> str:
    """The limit's text, less the words that its figure ends with."""
    return limit.text.removesuffix(" of baseline")


def _figure(measured: Measurement | None, limit: Limit | None) -> str:
    if measured is None or measured.value is None:
        return "not measured"
    if math.isinf(measured.value):
        return "without end: overloaded"
    if limit is not None and limit.relative and measured.ratio is not None:
        return f"{percent(measured.ratio.value)} of baseline"
    return f"{measured.value:.3g}" if abs(measured.value) < 1000 else f"{measured.value:.0f}"
