"""Looking again and again: the boundary against published constants and against simulation."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot import stats


@given(st.integers(1, 50), st.integers(0, 500), st.floats(1.05, 3.0))
def test_looks_grow_from_first_to_last(first: int, more: int, growth: float) -> None:
    """Both ends are looked at, and no look sees less than the one before."""
    sizes = stats.look_sizes(first, first + more, growth)

    assert sizes[0] == first
    assert sizes[-1] == first + more
    assert list(sizes) == sorted(set(sizes))


@pytest.mark.parametrize(("looks", "z"), [(1, 1.960), (2, 2.178), (3, 2.289), (5, 2.413), (10, 2.555)])
def test_level_at_looks_gives_pococks_constants(looks: int, z: float) -> None:
    """The constants of Pocock's (1977) table for equally spaced looks and 5% two-sided."""
    level = stats.level_at_looks(tuple(range(1, looks + 1)))

    assert NormalDist().inv_cdf((1 + level) / 2) == pytest.approx(z, abs=0.002)


def test_crossing_agrees_with_simulation() -> None:
    """200,000 walks, a look at each geometric size, with the bound that the search stops at."""
    sizes = stats.look_sizes(10, 67)
    bounds = [2.2] * len(sizes)
    steps = np.diff([0, *sizes])
    noise = np.random.default_rng(1).standard_normal((200_000, len(sizes)))
    z = np.cumsum(noise * np.sqrt(steps), axis=1) / np.sqrt(sizes)

    assert stats.crossing(bounds, sizes) == pytest.approx(float((z > bounds).any(axis=1).mean()), abs=0.001)


@pytest.mark.parametrize(("bounds", "sizes"), [([], []), ([2.0], [1, 2]), ([2.0, 2.0], [2, 2])])
def test_looks_that_see_nothing_new_are_refused(bounds: list[float], sizes: list[int]) -> None:
    """A look without a bound or without new data is a mistake of the caller."""
    with pytest.raises(ValueError, match="every look"):
        stats.crossing(bounds, sizes)
