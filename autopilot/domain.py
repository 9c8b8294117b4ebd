"""The values one parameter may take, as plug-ins declare and search spaces narrow them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopilot.errors import SpecError

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values, in order of preference (the first is the default)."""

    values: tuple[Scalar, ...]

    @property
    def default(self) -> Scalar:
        return self.values[0]

    def contains(self, value: Scalar) -> bool:
        return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in self.values)


@dataclass(frozen=True, slots=True)
class Int:
    """An integer in ``low..high``, both included."""

    low: int
    high: int
    default: int
    log: bool = False
    step: int = 1

    def contains(self, value: Scalar) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in ``low..high``, both included."""

    low: float
    high: float
    default: float
    log: bool = False

    def contains(self, value: Scalar) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high


Domain = Choice | Int | Float


def nearest(domain: Domain, value: Scalar) -> Scalar:
    """The value of ``domain`` that is nearest to ``value``; the default where the two can't be compared.

    >>> nearest(Int(1, 3, 2), 7), nearest(Choice((0, 2)), 5), nearest(Choice(("a", "b")), "c")
    (3, 2, 'a')
    """
    if domain.contains(value):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return domain.default
    if isinstance(domain, Choice):
        numbers = [v for v in domain.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        return min(numbers, key=lambda v: abs(v - value), default=domain.default)
    inside = min(max(value, domain.low), domain.high)
    return round(inside) if isinstance(domain, Int) else float(inside)


def narrow(domain: Domain, wanted: Any, where: str) -> Domain:
    """``domain`` restricted to ``wanted``: a value, a list of values, or {min, max} of a number.

    Raises:
        SpecError: a value outside what the plug-in declares.
    """
    if isinstance(wanted, Mapping):
        if isinstance(domain, Choice) or set(wanted) - {"min", "max"}:
            raise SpecError(f"{where}: {dict(wanted)!r} doesn't fit {_describe(domain)}.", "Write a list of values.")
        low, high = wanted.get("min", domain.low), wanted.get("max", domain.high)
        if not (domain.contains(low) and domain.contains(high) and low <= high):
            raise SpecError(f"{where}: {low}..{high} is not inside {_describe(domain)}.", "Narrow, don't widen.")
        default = min(max(domain.default, low), high)
        if isinstance(domain, Int):
            return Int(int(low), int(high), int(default), domain.log, domain.step)
        return Float(float(low), float(high), float(default), domain.log)
    listed = wanted if isinstance(wanted, (list, tuple)) else (wanted,)
    values = tuple(v for i, v in enumerate(listed) if v not in listed[:i])
    bad = [v for v in values if not domain.contains(v)]
    if bad or not values:
        shown = repr(bad[0]) if bad else "an empty list"
        raise SpecError(f"{where}: {shown} is not inside {_describe(domain)}.", "Narrow, don't widen.")
    default = domain.default
    # The declared default stays the default where it is still allowed.
    ordered = sorted(values, key=lambda v: v != default) if default in values else list(values)
    return Choice(tuple(ordered))


def _describe(domain: Domain) -> str:
    if isinstance(domain, Choice):
        return "one of " + ", ".join(str(v) for v in domain.values)
    return f"{domain.low}..{domain.high}"
