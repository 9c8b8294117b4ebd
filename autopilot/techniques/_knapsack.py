"""At most one option of each item, so that enough is gained at the least cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Gains are counted in this share of what is wanted: far finer than what timing can tell.
_STEPS = 400

Option = tuple[float, float]


def cheapest(items: Sequence[Sequence[Option]], wanted: float) -> tuple[int | None, ...]:
    """For each item the index of its chosen option, or None: the least sum of costs whose gains reach ``wanted``.

    ``items``: (gain, cost) of each item's options, costs of at least 0. Gains count in whole steps of
    ``wanted`` / 400, rounded down, so that a choice really reaches it. Where no choice does, each item's largest gain.
    The knapsack that HALP (Shen et al. 2022) solves to prune under a latency, by dynamic programming.

    >>> cheapest([[(1.0, 0.1), (2.0, 0.5)], [(1.0, 0.2)]], 2.0)
    (0, 0)
    >>> cheapest([[(1.0, 0.1), (2.0, 0.5)], [(1.0, 9.0)]], 2.0)
    (1, None)
    """
    best: list[tuple[float, tuple[int | None, ...]] | None] = [None] * (_STEPS + 1)
    best[0] = (0.0, ())
    for options in items:
        following: list[tuple[float, tuple[int | None, ...]] | None] = [None] * (_STEPS + 1)
        choices = [(None, 0, 0.0), *((i, _steps(gain, wanted), cost) for i, (gain, cost) in enumerate(options))]
        for at, known in enumerate(best):
            if known is None:
                continue
            for index, steps, cost in choices:
                to, total = min(_STEPS, at + steps), known[0] + cost
                there = following[to]
                if there is None or total < there[0]:
                    following[to] = (total, (*known[1], index))
        best = following
    reached = best[_STEPS]
    return reached[1] if reached is not None else tuple(_largest(options) for options in items)


def _steps(gain: float, wanted: float) -> int:
    return min(_STEPS, max(0, math.floor(gain / wanted * _STEPS + 1e-9)))


def _largest(options: Sequence[Option]) -> int | None:
    """The option that gains most, the cheapest of equal ones; None where none gains anything."""
    gaining = [i for i, (gain, _) in enumerate(options) if gain > 0]
    return max(gaining, key=lambda i: (options[i][0], -options[i][1])) if gaining else None
