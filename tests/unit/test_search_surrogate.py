"""The surrogate: distances, exact recall of what was seen, and what it says of what wasn't."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autopilot.search.surrogate import Choices, Observations, fit, predict

ROWS = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.one_of(st.booleans(), st.sampled_from(["x", "y"])), max_size=4),
    min_size=2,
    max_size=8,
)


@given(ROWS)
def test_distance_is_symmetric_and_nothing_to_itself(rows: list[dict[str, object]]) -> None:
    """0 to itself, between 0 and 1 a choice, the same both ways."""
    choices = Choices.of(rows)  # type: ignore[arg-type]
    n = range(len(rows))
    found = choices.distances(n, n)

    assert np.all((found >= 0) & (found <= 1))
    assert np.array_equal(found, found.transpose(0, 2, 1))
    assert not found[:, n, n].any()


def test_distance_counts_a_choice_that_one_alone_has() -> None:
    """Present against absent is a whole difference, absent in both none; numbers count by how far they are apart."""
    choices = Choices.of([{"a": 1, "k": "x"}, {"a": 3, "k": "x"}, {"a": 5}])
    found = choices.distances([0], [1, 2])

    assert found[0].tolist() == [[0.5, 1.0]]
    assert found[1].tolist() == [[0.0, 1.0]]


def grid() -> Choices:
    return Choices.of([{"technique": t, "option": o, "idle": i} for t in "abcd" for o in "uvw" for i in "mn"])


def worth(choices: Choices) -> np.ndarray:
    """The technique matters, the option a little, the idle one not at all; columns are sorted by name."""
    idle, option, technique = choices.codes.T
    assert idle.max() == 1
    return np.array(0.5 * technique + 0.1 * option, dtype=np.float64)


def test_model_recalls_what_it_saw_and_is_less_sure_of_what_it_did_not() -> None:
    """At observed rows the posterior is the observation; elsewhere its spread is larger."""
    choices = grid()
    value = worth(choices)
    rows = list(range(0, len(value), 2))
    seen = Observations(rows, value[rows], np.full(len(rows), 1e-3))
    told = predict(choices, seen, fit(choices, seen))

    assert np.allclose(told.mean[rows], value[rows], atol=0.02)
    assert told.std[rows].max() < told.std[[i for i in range(len(value)) if i not in rows]].min()


def test_fit_finds_which_choice_matters() -> None:
    """The weight of the choice that changes everything is above that of the one that changes nothing."""
    choices = grid()
    value = worth(choices)
    rows = list(range(len(value)))
    weights = fit(choices, Observations(rows, value, np.full(len(rows), 0.01)))
    idle, _, technique = weights

    assert idle < technique


def test_model_ranks_untried_combinations_of_known_effects() -> None:
    """Effects seen apart are put together: the untried best combination is predicted to be among the best."""
    choices = grid()
    value = worth(choices)
    best = int(np.argmin(value))
    rows = [i for i in range(len(value)) if i not in (best, best + 1)]
    seen = Observations(rows, value[rows], np.full(len(rows), 0.01))
    told = predict(choices, seen, fit(choices, seen))

    assert told.mean[best] < np.median(value)


def test_model_without_observations_knows_nothing() -> None:
    """The prior: the same mean and spread everywhere."""
    told = predict(grid(), Observations([], np.empty(0), np.empty(0)), np.ones(3))

    assert set(told.mean) == {0.0}
    assert set(told.std) == {1.0}
