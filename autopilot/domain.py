"""The values one parameter may take, as plug-ins declare and search spaces narrow them."""

from __future__ import annotations

from dataclasses import dataclass

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
