"""The surrogate: distances, exact recall of what was seen, and what it says of what wasn't."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autopilot.search.surrogate import Observations, Surrogate, Table

ROWS = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.one_of(st.booleans(), st.sampled_from(["x", "y"])), max_size=4),
    min_size=2,
    max_size=8,
)


@given(ROWS)
def test_distance_is_symmetric_and_nothing_to_itself(rows: list[dict[str, object]]) -> None:
    """0 to itself, between 0 and 1 a choice, the same both ways."""
    n = range(len(rows))
    table = Table(rows)  # type: ignore[arg-type]
    found = np.stack([table.distances(row) for row in n], axis=1)

    assert np.all((found >= 0) & (found <= 1))
    assert np.array_equal(found, found.transpose(0, 2, 1))
    assert not found[:, n, n].any()


def test_distance_counts_a_choice_that_one_alone_has() -> None:
    """Present against absent is a whole difference, absent in both none; numbers count by how far they are apart."""
    found = Table([{"a": 1, "k": "x"}, {"a": 3, "k": "x"}, {"a": 5}]).distances(0)

    assert found[0].tolist() == [0.0, 0.5, 1.0]
    assert found[1].tolist() == [0.0, 0.0, 1.0]


GRID = [{"technique": t, "option": o, "idle": i} for t in range(4) for o in range(3) for i in "mn"]
# The technique matters, the option a little, the idle one not at all; columns are sorted by name.
WORTH = np.array([0.5 * row["technique"] + 0.1 * row["option"] for row in GRID])  # type: ignore[operator]


def seen(rows: list[int], noise: float = 0.01) -> Observations:
    return Observations(rows, WORTH[rows], np.full(len(rows), noise))


def fitted(observed: Observations) -> Surrogate:
    model = Surrogate(Table([{name: str(value) for name, value in row.items()} for row in GRID]))
    model.fit(observed)
    return model


def test_model_recalls_what_it_saw_and_is_less_sure_of_what_it_did_not() -> None:
    """At observed rows the posterior is the observation; elsewhere its spread is larger."""
    rows = list(range(0, len(GRID), 2))
    observed = seen(rows, 1e-3)
    told = fitted(observed).predict(observed)

    assert np.allclose(told.mean[rows], WORTH[rows], atol=0.02)
    assert told.std[rows].max() < told.std[[i for i in range(len(GRID)) if i not in rows]].min()


def test_fit_finds_which_choice_matters() -> None:
    """The weight of the choice that changes everything is above that of the one that changes nothing."""
    idle, _, technique = fitted(seen(list(range(len(GRID))))).weights

    assert idle < technique


def test_model_ranks_untried_combinations_of_known_effects() -> None:
    """Effects seen apart are put together: the untried best combination is predicted to be among the best."""
    best = int(np.argmin(WORTH))
    observed = seen([i for i in range(len(GRID)) if i not in (best, best + 1)])
    told = fitted(observed).predict(observed)

    assert told.mean[best] < np.median(WORTH)


def test_fit_of_hardly_anything_takes_no_side() -> None:
    """Two observations say nothing about choices: all weigh alike."""
    assert len(set(fitted(seen([0, 1])).weights)) == 1
