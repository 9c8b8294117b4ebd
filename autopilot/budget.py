"""Limit, Budget, Verdict: parse limits and judge measurements. Pure; never raises while judging."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from autopilot.contracts import Axis
from autopilot.profile import Interval, Measurement

# A violation is dimensionless; an unbounded interval counts as this much, so that samplers,
# which add violations up, still see the other limits.
WORST_VIOLATION = 10.0
# From here on it grows ever slower towards the worst: the nearer of two that miss by a factor of 40 and 100 stays told.
_BENT_FROM = WORST_VIOLATION - 1.0

_RELATIVE = re.compile(r"^\s*(?P<percent>\d+(?:\.\d+)?)\s*%\s*of\s+baseline\s*$")
_PERCENT = re.compile(r"^\s*(?P<percent>\d+(?:\.\d+)?)\s*%\s*$")

# Axes where less than zero has a meaning: r2 and correlations may be negative.
_MAY_BE_NEGATIVE = frozenset({"quality"})
# Axes where a limit of zero has a meaning: no loss at all.
_MAY_BE_ZERO = frozenset({"quality", "quality_drop"})


class Judgement(StrEnum):
    """What the interval says about a limit."""

    IN = "in"
    OUT = "out"
    UNDECIDED = "undecided"
    NOT_MEASURABLE = "not_measurable"


def parse_fraction(raw: Any) -> float:
    """``"5%"`` or ``0.05`` as a fraction in [0, 1).

    Raises:
        ValueError: anything else; the message is a plain sentence.

    >>> parse_fraction("5%")
    0.05
    """
    value: float
    if isinstance(raw, str) and (match := _PERCENT.match(raw)):
        value = float(match["percent"]) / 100.0
    elif isinstance(raw, (int, float)) and not isinstance(raw, bool):
        value = float(raw)
    else:
        raise ValueError(f"{raw!r} is no fraction; write 5% or 0.05")
    if not 0.0 <= value < 1.0:
        raise ValueError(f"a margin of {raw!r} is outside 0%..99%; write a share such as 5%")
    return value


@dataclass(frozen=True, slots=True)
class Limit:
    """One hard limit on one axis.

    ``bound`` is in the axis's unit, or the share of the baseline's value when ``relative``
    (0.6 for "60% of baseline"). ``upper`` means at most. ``margin`` is the safety share of the
    bound kept free: an upper bound of 2.0 with 5% is judged as 1.9.
    """

    axis: str
    bound: float
    relative: bool = False
    upper: bool = True
    margin: float = 0.0

    @classmethod
    def parse(cls, axis: Axis, raw: Any, default_margin: float = 0.0) -> Limit:
        """Read one entry of ``budget:``.

        Raises:
            ValueError: a plain sentence about what is wrong and what would be right.
        """
        upper, margin = not axis.higher_is_better, default_margin
        if isinstance(raw, Mapping):
            unknown = sorted(set(raw) - {"max", "min", "margin"})
            if unknown:
                raise ValueError(
                    f"{axis.name} has no setting {unknown[0]!r}; max, min and margin are the ones there are"
                )
            if ("max" in raw) == ("min" in raw):
                raise ValueError(f"{axis.name} needs exactly one of max and min")
            key = "max" if "max" in raw else "min"
            if (key == "max") != upper:
                right, word = ("min", "higher") if axis.higher_is_better else ("max", "lower")
                raise ValueError(f"{axis.name} is limited by {right}, not {key}: {word} is better")
            if "margin" in raw:
                margin = parse_fraction(raw["margin"])
            raw = raw[key]
        bound, relative = _parse_bound(axis.name, raw)
        if relative and axis.name == "quality_drop":
            raise ValueError("quality_drop is already relative to the baseline; write an absolute loss such as 0.01")
        return cls(axis.name, bound, relative, upper, margin)

    @property
    def effective(self) -> float:
        """The bound with the margin taken off: what intervals are held against."""
        room = self.margin * abs(self.bound)
        return self.bound - room if self.upper else self.bound + room

    @property
    def text(self) -> str:
        """For people: ``<= 60% of baseline``."""
        sign = "<=" if self.upper else ">="
        return f"{sign} {self.bound * 100:g}% of baseline" if self.relative else f"{sign} {self.bound:g}"

    def interval(self, measured: Measurement | None) -> Interval | None:
        """The figures this limit is judged on, or None where there are none."""
        if measured is None or measured.value is None:
            return None
        if self.relative:
            return measured.ratio
        low = measured.value if measured.low is None else measured.low
        high = measured.value if measured.high is None else measured.high
        return Interval(measured.value, low, high)

    def judge(self, measured: Measurement | None) -> Judgement:
        """In when the whole interval is inside, out when all of it is outside."""
        if measured is None:  # the trial ended before
            return Judgement.UNDECIDED
        figures = self.interval(measured)
        if figures is None or math.isnan(figures.value):
            return Judgement.NOT_MEASURABLE
        lucky, unlucky = (figures.low, figures.high) if self.upper else (-figures.high, -figures.low)
        bound = self.effective if self.upper else -self.effective
        if unlucky <= bound:
            return Judgement.IN
        return Judgement.OUT if lucky > bound else Judgement.UNDECIDED

    def violation(self, measured: Measurement | None) -> float | None:
        """Relative violation on the interval's unlucky side, <= 0 when kept; None where not measured."""
        figures = self.interval(measured)
        if figures is None or math.isnan(figures.value):
            return None
        excess = figures.high - self.effective if self.upper else self.effective - figures.low
        scaled = excess / (abs(self.bound) or 1.0)
        if math.isnan(scaled):
            return WORST_VIOLATION
        if scaled > _BENT_FROM:  # without a step or a kink there, and the worst where the interval has no bound
            return WORST_VIOLATION - 1.0 / (scaled - _BENT_FROM + 1.0)
        return max(-WORST_VIOLATION, scaled)

    def to_json(self) -> dict[str, Any]:
        return {
            "max" if self.upper else "min": self.bound,
            "relative": self.relative,
            "margin": self.margin,
            "text": self.text,
        }

    @classmethod
    def from_json(cls, axis: str, value: Mapping[str, Any]) -> Limit:
        upper = "max" in value
        return cls(
            axis, float(value["max" if upper else "min"]), bool(value["relative"]), upper, float(value["margin"])
        )


def _parse_bound(name: str, raw: Any) -> tuple[float, bool]:
    right = (
        "an absolute loss such as 0.01" if name == "quality_drop" else "a number, or a share such as 60% of baseline"
    )
    if isinstance(raw, str):
        match = _RELATIVE.match(raw)
        if match is None:
            raise ValueError(f"{name}: {raw!r} is no limit; write {right}")
        share = float(match["percent"]) / 100.0
        if share <= 0:
            raise ValueError(f"{name}: a limit of 0% of baseline can't be met; write a share above 0%")
        return share, True
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not math.isfinite(raw):
        raise ValueError(f"{name}: {raw!r} is no limit; write {right}")
    if raw < 0 and name not in _MAY_BE_NEGATIVE:
        raise ValueError(f"{name}: a limit of {raw:g} is negative; {name} can't be below 0, so write a positive number")
    if raw == 0 and name not in _MAY_BE_ZERO:
        raise ValueError(f"{name}: a limit of 0 can't be met; write a positive number")
    return float(raw), False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a variant, and of each limit; ``violations`` are dimensionless."""

    overall: Judgement
    per_limit: Mapping[str, Judgement]
    violations: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest violation, for finding the nearest miss; 0 when every limit is kept."""
        return max([0.0, *self.violations.values()])

    def to_json(self) -> dict[str, Any]:
        return {
            "overall": self.overall.value,
            "per_limit": {k: v.value for k, v in self.per_limit.items()},
            "violations": dict(self.violations),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        limits = {k: Judgement(v) for k, v in value["per_limit"].items()}
        return cls(Judgement(value["overall"]), limits, {k: float(v) for k, v in value["violations"].items()})


@dataclass(frozen=True, slots=True)
class Budget:
    """All limits; every one is hard."""

    limits: tuple[Limit, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(limit.axis for limit in self.limits)

    def limit(self, axis: str) -> Limit | None:
        """The limit on ``axis``, or None."""
        return next((limit for limit in self.limits if limit.axis == axis), None)

    def judge(self, measured: Mapping[str, Measurement]) -> Verdict:
        """Judge a variant; a missing value is never "in".

        One limit out makes the variant out; else one undecided or not measurable makes it undecided.
        """
        per_limit = {limit.axis: limit.judge(measured.get(limit.axis)) for limit in self.limits}
        found = {limit.axis: limit.violation(measured.get(limit.axis)) for limit in self.limits}
        violations = {axis: value for axis, value in found.items() if value is not None}
        if Judgement.OUT in per_limit.values():
            overall = Judgement.OUT
        elif all(j is Judgement.IN for j in per_limit.values()):
            overall = Judgement.IN
        else:
            overall = Judgement.UNDECIDED
        return Verdict(overall, per_limit, violations)

    def broken(self, measured: Mapping[str, Measurement]) -> tuple[str, ...]:
        """Axes measured so far whose limit is certainly violated: the trial can end."""
        return tuple(limit.axis for limit in self.limits if limit.judge(measured.get(limit.axis)) is Judgement.OUT)

    def to_json(self) -> dict[str, Any]:
        return {limit.axis: limit.to_json() for limit in self.limits}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Budget:
        return cls(tuple(Limit.from_json(axis, v) for axis, v in value.items()))
