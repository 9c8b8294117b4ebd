"""Which units stay, what they cost, and the least squares after; pure arithmetic."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autopilot.techniques._units_choice import Options, choose, most_important, rearranged
from autopilot.techniques._units_cost import _table
from autopilot.techniques._units_fit import Normal, enough, fitted

SEEDS = st.integers(0, 2**32 - 1)


def options(rng: Any, blocks: int, units: int = 5) -> list[Options]:
    """Blocks of any importance, at costs that rise."""
    costs = [np.concatenate([[0.0], np.cumsum(rng.uniform(0.1, 2.0, units))]) for _ in range(blocks)]
    return [Options.of(rng.exponential(size=units), c, 1) for c in costs]


def picked(found: list[Options], counts: list[int], what: str) -> float:
    """The total loss or cost of those counts."""
    return sum(float(getattr(o, what)[list(o.counts).index(n)]) for o, n in zip(found, counts, strict=True))


@given(SEEDS, st.floats(0.3, 1.0))
def test_choice_keeps_the_budget_and_is_near_the_best(seed: int, share: float) -> None:
    """It costs no more than allowed, and loses no more than the best choice plus the dearest single step."""
    found = options(np.random.default_rng(seed), 3)
    least = sum(float(o.cost.min()) for o in found)
    budget = max(least, share * sum(float(o.cost[-1]) for o in found))

    counts = choose(found, budget)

    assert picked(found, counts, "cost") <= budget * (1 + 1e-12)
    every = product(*(list(o.counts) for o in found))
    best = min(picked(found, list(c), "loss") for c in every if picked(found, list(c), "cost") <= budget)
    assert picked(found, counts, "loss") <= best + max(float(-np.diff(o.loss).min()) for o in found) + 1e-9


@given(SEEDS)
def test_everything_stays_when_the_budget_allows_it(seed: int) -> None:
    """Nothing is removed for nothing."""
    found = options(np.random.default_rng(seed), 3)

    assert choose(found, sum(float(o.cost[-1]) for o in found)) == [5, 5, 5]


def test_smallest_counts_are_taken_when_even_they_cost_more() -> None:
    """A budget below what must stay is met as nearly as can be."""
    assert choose(options(np.random.default_rng(0), 2), 0.0) == [1, 1]


def test_counts_are_multiples_or_all() -> None:
    """A width that is no multiple of the step may stay as it is."""
    assert Options.of(np.ones(10), np.arange(11.0), 4).counts.tolist() == [4, 8, 10]


@given(SEEDS, st.integers(1, 9))
def test_rearranging_keeps_the_count_and_never_loses_more(seed: int, count: int) -> None:
    """By the block's Fisher information, exchanges only ever lower what is lost."""
    gradients = np.random.default_rng(seed).standard_normal((6, 10))
    fisher = gradients.T @ gradients / 6
    before = most_important((gradients**2).mean(0), count)

    after = rearranged(gradients, before)

    loss = [float(r @ fisher @ r) for r in (1.0 - np.isin(np.arange(10), kept) for kept in (before, after))]
    assert len(after) == count
    assert list(after) == sorted(set(after))
    assert loss[1] <= loss[0] + 1e-9


def normal(rng: Any, rows: int, inputs: int, outputs: int) -> tuple[Normal, Any, Any]:
    """The equations of random inputs and errors, and both."""
    x, error = rng.standard_normal((rows, inputs)), rng.standard_normal((rows, outputs))
    equations = Normal(np.zeros((inputs, inputs)), np.zeros((inputs, outputs)), 0.0)
    equations.take([(x, error)])
    return equations, x, error


@given(SEEDS, st.integers(1, 30), st.booleans())
def test_refit_is_never_worse_than_none(seed: int, rows: int, by_unit: bool) -> None:
    """On what it was fitted on the squared error doesn't rise, with fewer rows than inputs too."""
    rng = np.random.default_rng(seed)
    equations, x, error = normal(rng, rows, 8, 3)
    weights = rng.standard_normal((8, 3))

    change = equations.solved_by_unit(0.01, weights, 2) if by_unit else equations.solved(0.01)

    assert ((error - x @ change) ** 2).sum() <= (error**2).sum() * (1 + 1e-9)
    np.testing.assert_allclose(equations.after(change), ((error - x @ change) ** 2).sum(), rtol=1e-6, atol=1e-6)


@given(SEEDS, st.integers(1, 40))
def test_held_out_rows_choose_the_damping(seed: int, rows: int) -> None:
    """What is fitted is never worse than nothing on all rows, and nothing is changed where only noise is seen."""
    rng = np.random.default_rng(seed)
    fitting, held = normal(rng, rows, 8, 3)[0], normal(rng, 10, 8, 3)[0]

    change = fitted(fitting, held, Normal.solved)

    whole = fitting.joined(held)
    assert whole.after(change) <= whole.before
    worse = all(held.after(fitting.solved(d)) >= held.before for d in (1e-3, 1e-2, 1e-1, 1.0, 10.0))
    assert worse == (not change.any())


def test_rows_of_unequal_weight_count_as_fewer() -> None:
    """Requests of one row that matters hold an eighth of what requests of eight hold."""
    even, single = np.ones(8, np.float32), np.eye(8, dtype=np.float32)[0]

    assert len(enough([even] * 100, 10)) == 10
    assert len(enough([single] * 100, 10)) == 80
    assert len(enough([single] * 20, 10)) == 20


def test_refit_finds_what_was_lost() -> None:
    """Where a change of the weights explains the whole error, little of it is left."""
    rng = np.random.default_rng(0)
    x, lost = rng.standard_normal((200, 6)), rng.standard_normal((6, 2))
    equations = Normal(np.zeros((6, 6)), np.zeros((6, 2)), 0.0)
    equations.take([(x, x @ lost)])

    assert equations.after(equations.solved(0.001)) < 0.001 * equations.before


def test_factors_of_units_leave_a_bias_alone() -> None:
    """The last row, a bias, is no unit's."""
    rng = np.random.default_rng(0)
    equations, *_ = normal(rng, 50, 7, 3)

    assert not equations.solved_by_unit(0.01, rng.standard_normal((6, 3)), 2)[6].any()


@given(st.lists(st.floats(1.0, 9.0), min_size=4, max_size=4))
def test_cost_table_begins_at_nothing_and_never_falls(times: list[float]) -> None:
    """Noise in the measured points makes no larger block cheaper."""
    table = _table(np.array([2, 4, 6, 8]), np.array(times), 8)

    assert table[0] == 0.0
    assert (np.diff(table) >= -1e-9).all()
