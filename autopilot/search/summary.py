"""Measurements of every axis from a profile, with the ratios that relative limits are judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from autopilot import plugins
from autopilot.budget import Budget
from autopilot.contracts import Stage, facts_of
from autopilot.profile import Interval, Measurement, Profile
from autopilot.recipe import Deployment
from autopilot.result import RATES

_ORDER = tuple(Stage)


class Question(Protocol):
    """What names axes besides the declared ones: a problem, or the result of an earlier run."""

    @property
    def budget(self) -> Budget: ...

    @property
    def objectives(self) -> tuple[str, ...]: ...


def summarise(
    problem: Question, profile: Profile, stage: Stage, baseline: Mapping[str, Measurement] | None
) -> dict[str, Measurement]:
    """Every axis that is known after ``stage``, by name; stages before it that were not run yet give none.

    ``baseline`` holds the baseline's own measurements; None where ``profile`` is the baseline's.
    """
    found: dict[str, Measurement] = {}
    for name in _axis_names(problem):
        meter = plugins.find_axis(name)
        if meter is not None and _is_known(meter[1].stage, profile, stage):
            found[name] = with_ratio(meter[0].summarise(profile, name), baseline)
    return found


def _is_known(asked: Stage, profile: Profile, reached: Stage) -> bool:
    if (asked is Stage.LATENCY and profile.latency is None) or (asked is Stage.QUALITY and profile.quality is None):
        return False
    return _ORDER.index(asked) <= _ORDER.index(reached)


def _axis_names(problem: Question) -> tuple[str, ...]:
    """Declared axes, then those that the spec alone names (an odd percentile)."""
    return tuple(dict.fromkeys([*plugins.axis_names(), *problem.budget.axes, *problem.objectives]))


def with_ratio(measured: Measurement, baseline: Mapping[str, Measurement] | None) -> Measurement:
    """Relative limits on axes that aren't interleaved are judged against the baseline's own figure."""
    if measured.value is None or measured.ratio is not None or measured.axis == "quality_drop":
        return measured
    if baseline is None:
        return replace(measured, ratio=Interval(1.0, 1.0, 1.0))
    base = baseline.get(measured.axis)
    if base is None or base.value is None or base.value <= 0 or base.low is None or base.high is None:
        return measured
    low = measured.value if measured.low is None else measured.low
    high = measured.value if measured.high is None else measured.high
    widest = high / base.low if base.low > 0 else float("inf")
    return replace(measured, ratio=Interval(measured.value / base.value, low / base.high, widest))


def times_as_fast(measured: Mapping[str, Measurement], axis: str) -> Interval | None:
    """How many times as fast (or as good) as the baseline on ``axis``, a time or a rate; None where it isn't known."""
    found = measured.get(axis)
    if found is None or found.ratio is None:
        return None
    if axis in RATES:
        return found.ratio
    r = found.ratio
    high = 1 / r.low if r.low > 0 else float("inf")
    return Interval(1 / r.value, 1 / r.high if r.high else 0.0, high) if r.value > 0 else None


def measurement(name: str, profile: Profile, stage: Stage) -> Measurement | None:
    """The measurement of axis ``name`` if it belongs to ``stage``."""
    found = plugins.find_axis(name)
    return found[0].summarise(profile, name) if found is not None and found[1].stage is stage else None


def environment(deployment: Deployment) -> dict[str, str]:
    """What the placement meter has to know of the provider: its name in the runtime's report, what it can't tell."""
    provider = plugins.providers()[deployment.provider]
    name = getattr(provider, "execution_provider", None)
    told = {"execution_provider": name, "int8_unaudited": facts_of(provider).unaudited}
    return {key: value for key, value in told.items() if value}
