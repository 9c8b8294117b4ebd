"""Figures, axes, verdicts and recipes in words: what every section and chart says them with."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from autopilot.budget import Judgement, Limit
from autopilot.domain import Scalar
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Deployment, Recipe, Step
from autopilot.words import DASH, counted, percent

# Sign, word: a verdict is never told by its colour alone.
JUDGED = {
    Judgement.IN: ("✓", "in"),
    Judgement.OUT: ("✗", "out"),
    Judgement.UNDECIDED: ("?", "undecided"),
    Judgement.NOT_MEASURABLE: ("–", "not measurable"),
}
_UNITS = {"ms": "ms", "mb": "MB", "s": "s", "rps": "a second", "mj": "mJ"}
_PER_MILLION = "cost_per_million"
_EXPONENT_FROM = 1e4


def figure(value: float | None, digits: int = 4) -> str:
    """So many digits that count; no exponent for everyday sizes.

    >>> figure(0.037312), figure(123456.7), figure(None)
    ('0.03731', '123,457', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= _EXPONENT_FROM or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def span(interval: Interval | None, *, relative: bool = False, digits: int = 4) -> str:
    """The bounds of an interval; a side without a bound is said so (a lower bound of 0 beside none is none too).

    >>> span(Interval(1.0, 0.9, float("inf")))
    '0.9 or more'
    """
    if interval is None:
        return DASH
    low, high = interval.low, interval.high

    def say(value: float) -> str:
        return percent(value) if relative else figure(value, digits)

    if math.isinf(high):
        return "no bounds" if math.isinf(low) or low == 0 else f"{say(low)} or more"
    if math.isinf(low):
        return f"{say(high)} or less"
    return say(low) if low == high else f"{say(low)} to {say(high)}"


def interval_of(measured: Measurement | None) -> Interval | None:
    """Value and bounds of a figure; a bound that wasn't taken is the value itself. None without a value."""
    if measured is None or measured.value is None or math.isnan(measured.value):
        return None
    low = measured.value if measured.low is None else measured.low
    high = measured.value if measured.high is None else measured.high
    return Interval(measured.value, low, high)


def judged_on(limit: Limit | None, measured: Measurement | None) -> Interval | None:
    """What a limit is held against: the ratio to the baseline where it is relative."""
    return limit.interval(measured) if limit is not None else interval_of(measured)


def unit(axis: str) -> str:
    """The unit in an axis's name, for people; empty where it has none."""
    return "" if axis == _PER_MILLION else _UNITS.get(axis.rpartition("_")[2], "")


def title(axis: str) -> str:
    """An axis for people.

    >>> title("latency_p50_ms"), title("quality_drop"), title("throughput_rps")
    ('latency p50 (ms)', 'quality drop', 'throughput (a second)')
    """
    found = unit(axis)
    name = axis.rpartition("_")[0] if found else axis
    words = re.sub(r"[_\s]+", " ", name).strip() or axis
    return f"{words} ({found})" if found else words


def duration(seconds: float) -> str:
    """A span of time as people say it.

    >>> duration(47.2), duration(183)
    ('47 s', '3 min 3 s')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def setting(value: object) -> str:
    """A parameter's value for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def settings(values: Iterable[tuple[str, Scalar]]) -> str:
    """``name value`` for each, in one line."""
    return ", ".join(f"{name} {setting(value)}" for name, value in values)


def full_recipe(recipe: Recipe) -> str:
    """Every step with all its parameters, in one line."""
    said = [f"{s.technique} ({settings(s.params)})" if s.params else s.technique for s in recipe.steps]
    return ", then ".join(said) or "the model as given"


def short_recipe(recipe: Recipe, varied: Mapping[str, frozenset[str]]) -> str:
    """The steps with those parameters alone that differ between trials (``varied_parameters``)."""
    return ", then ".join(_short(step, varied.get(step.technique, frozenset())) for step in recipe.steps) or "as given"


def _short(step: Step, shown: frozenset[str]) -> str:
    told = [(name, value) for name, value in step.params if name in shown]
    return f"{step.technique} ({settings(told)})" if told else step.technique


def varied_parameters(recipes: Iterable[Recipe]) -> dict[str, frozenset[str]]:
    """By technique, the parameters that have several values in these recipes: the others tell nothing apart."""
    seen: dict[str, dict[str, set[Scalar]]] = defaultdict(lambda: defaultdict(set))
    for recipe in recipes:
        for step in recipe.steps:
            for name, value in step.params:
                seen[step.technique][name].add(value)
    return {t: frozenset(n for n, values in names.items() if len(values) > 1) for t, names in seen.items()}


def full_deployment(deployment: Deployment) -> str:
    """How a variant is run, in one line."""
    head = f"{deployment.provider}, {counted(deployment.threads, 'thread')}, batch {deployment.batch}"
    rest = [*deployment.serving_json().items(), *deployment.options]
    return f"{head}, {settings(rest)}" if rest else head


def short_deployment(deployment: Deployment, usual: Deployment) -> str:
    """What of a deployment differs from ``usual``."""
    common, own = usual.to_json(), deployment.to_json()
    return settings((k, v) for k, v in own.items() if common.get(k) != v) or "as the baseline"
