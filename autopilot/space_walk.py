"""Every variant of a finite search space, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator

from autopilot.domain import Choice, Domain, Int, Scalar
from autopilot.errors import SpecError
from autopilot.recipe import Variant
from autopilot.space import SearchSpace


class TooMany(Exception):
    """There are more draws than were allowed."""


def walk(space: SearchSpace, *, most: int | None = None) -> Iterator[Variant]:
    """Each variant that ``space.sample`` can give, once; parameters that don't matter make no variants of their own.

    Depth first: the last choice asked changes first.

    Raises:
        SpecError: a parameter is a real number, so that there is no end of variants.
        TooMany: after ``most`` draws.
    """
    seen: set[str] = set()
    path: list[tuple[tuple[Scalar, ...], int]] = []  # the values of each choice on the way, and the one taken
    drawn = 0
    while True:
        if most is not None and drawn >= most:
            raise TooMany
        variant = space.sample(_Replay(path))
        drawn += 1
        if variant.id not in seen:
            seen.add(variant.id)
            yield variant
        while path and path[-1][1] + 1 == len(path[-1][0]):
            path.pop()
        if not path:
            return
        values, taken = path[-1]
        path[-1] = (values, taken + 1)


class _Replay:
    """Answers with the choices of ``path``, and appends the first value of every further one."""

    def __init__(self, path: list[tuple[tuple[Scalar, ...], int]]) -> None:
        self._path = path
        self._at = 0

    def __call__(self, name: str, domain: Domain) -> Scalar:
        if self._at == len(self._path):
            self._path.append((_values(name, domain), 0))
        values, taken = self._path[self._at]
        self._at += 1
        return values[taken]


def _values(name: str, domain: Domain) -> tuple[Scalar, ...]:
    if isinstance(domain, Choice):
        return domain.values
    if isinstance(domain, Int):
        return tuple(range(domain.low, domain.high + 1, domain.step))
    raise SpecError(
        f"{name} is a real number, {domain.low}..{domain.high}: there is no end of variants.", "List values."
    )
