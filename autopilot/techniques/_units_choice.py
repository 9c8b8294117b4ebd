"""Which units stay: the most information within a cost (Kwon et al. 2022, "A Fast Post-Training Pruning Framework")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from autopilot.contracts import Array

# Bisections of the price of information: 60 halvings exhaust a float.
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class Options:
    """What one block may be cut to: ``counts`` of units, ascending, the ``loss`` and ``cost`` of each; float64."""

    counts: Array
    loss: Array
    cost: Array

    @classmethod
    def of(cls, importance: Array, costs: Array, round_to: int) -> Options:
        """``importance`` shape (units,), ``costs`` shape (units + 1,) by the number of units kept.

        >>> Options.of(np.array([3.0, 1.0, 2.0]), np.arange(4.0), 1).loss.tolist()
        [3.0, 1.0, 0.0]
        """
        units = len(importance)
        counts = np.array(sorted({*range(round_to, units, round_to), units}))
        lost = np.concatenate([[0.0], np.cumsum(np.sort(importance))])
        return cls(counts, lost[units - counts], costs[counts])


def choose(options: Sequence[Options], budget: float) -> list[int]:
    """How many units each block keeps so that the least is lost for a total cost of at most ``budget``.

    By the Lagrangian of this multiple-choice knapsack, then what is left is spent where it brings most. Where
    even the smallest counts cost more, those are taken.
    """
    cheap, dear = _at_price(options, np.inf), _at_price(options, 0.0)
    if _spent(options, dear) <= budget:
        return [int(o.counts[i]) for o, i in zip(options, dear, strict=True)]
    low, high = 0.0, _highest_price(options)
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        picks = _at_price(options, price)
        if _spent(options, picks) <= budget:
            cheap, high = picks, price
        else:
            low = price
    picks = list(cheap)
    while step := _best_step(options, picks, budget - _spent(options, picks)):
        picks[step[0]] = step[1]
    return [int(o.counts[i]) for o, i in zip(options, picks, strict=True)]


def _spent(options: Sequence[Options], picks: Sequence[int]) -> float:
    return sum(float(o.cost[i]) for o, i in zip(options, picks, strict=True))


def _at_price(options: Sequence[Options], price: float) -> list[int]:
    if price == np.inf:
        return [int(np.argmin(o.cost)) for o in options]
    return [int(np.argmin(o.loss + price * o.cost)) for o in options]


def _highest_price(options: Sequence[Options]) -> float:
    """A price at which every block takes its cheapest count."""
    gaps = [np.diff(np.unique(o.cost)) for o in options]
    smallest = min((float(g.min()) for g in gaps if len(g)), default=1.0)
    return 1.0 + sum(float(o.loss.max()) for o in options) / max(smallest, 1e-12)


def _best_step(options: Sequence[Options], picks: Sequence[int], left: float) -> tuple[int, int] | None:
    """The block and its larger count that saves most for its cost, within what is left."""
    best, found = 0.0, None
    for block, (option, now) in enumerate(zip(options, picks, strict=True)):
        saved, price = option.loss[now] - option.loss, option.cost - option.cost[now]
        for index in np.flatnonzero((saved > 0) & (price <= left)):
            worth = float(saved[index]) / max(float(price[index]), 1e-12)
            if worth > best:
                best, found = worth, (block, int(index))
    return found


def most_important(importance: Array, count: int) -> Array:
    """Indices of the ``count`` most important units, ascending; of equal ones the first."""
    ranked: Array = np.sort(np.argsort(-importance, kind="stable")[:count])
    return ranked


def rearranged(gradients: Array, kept: Array) -> Array:
    """``kept`` after exchanges within the block that lower the loss with units felt together.

    ``gradients``: shape (requests, units). The loss of removing r is r' F r with F the block's Fisher information,
    gradients' mean outer product; each exchange takes the pair that lowers it most.

    >>> rearranged(np.array([[1.0, -1.0, 0.9]]), np.array([0]))
    array([2])
    """
    units = gradients.shape[1]
    fisher = gradients.T @ gradients / len(gradients)
    inside = np.isin(np.arange(units), kept)
    felt = fisher @ ~inside
    own = np.diag(fisher)
    for _ in range(units):
        out, back = np.flatnonzero(inside), np.flatnonzero(~inside)
        if not len(out) or not len(back):
            break
        # Removing i and bringing j back: r gains i and loses j.
        change = (own + 2 * felt)[out][:, None] + (own - 2 * felt)[back][None, :] - 2 * fisher[np.ix_(out, back)]
        i, j = np.unravel_index(np.argmin(change), change.shape)
        if change[i, j] >= -1e-12 * max(float(own.sum()), 1e-300):
            break
        inside[out[i]], inside[back[j]] = False, True
        felt += fisher[:, out[i]] - fisher[:, back[j]]
    return np.flatnonzero(inside)
