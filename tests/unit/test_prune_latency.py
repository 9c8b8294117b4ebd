"""Widths for milliseconds: the knapsack is exact, candidates keep to the rounding, and noise saves nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot import plugins
from autopilot.domain import Scalar
from autopilot.techniques._interleaved import _share
from autopilot.techniques._knapsack import cheapest
from autopilot.techniques._prune_latency import Table, Width, candidate_widths, picked

# Gains in whole steps of what is wanted, so that rounding plays no part.
OPTIONS = st.lists(st.tuples(st.integers(-3, 12), st.integers(0, 50)), max_size=3)
TECHNIQUE = plugins.techniques()["prune_channels"]


@given(st.lists(OPTIONS, min_size=1, max_size=4), st.sampled_from([4, 8, 20]))
def test_choice_costs_least_of_all_that_reach_what_is_wanted(items: list[list[tuple[int, int]]], wanted: int) -> None:
    """As trying every combination does; out of reach, everything that gains is taken."""
    given_items = [[(float(g), float(c)) for g, c in options] for options in items]

    chosen = cheapest(given_items, float(wanted))

    every = itertools.product(*([None, *range(len(options))] for options in items))
    sums = [
        (
            sum(max(0, items[i][k][0]) for i, k in enumerate(picks) if k is not None),
            sum(items[i][k][1] for i, k in enumerate(picks) if k is not None),
        )
        for picks in every
    ]
    gain = sum(max(0, items[i][k][0]) for i, k in enumerate(chosen) if k is not None)
    cost = sum(items[i][k][1] for i, k in enumerate(chosen) if k is not None)
    reaching = [c for g, c in sums if g >= wanted]
    assert len(chosen) == len(items)
    assert (gain >= wanted and cost == min(reaching)) if reaching else gain == max(g for g, _ in sums)


@given(st.integers(1, 2048), st.sampled_from([1, 4, 8, 16]))
def test_candidates_are_narrower_multiples(width: int, round_to: int) -> None:
    """Few, falling, never all channels gone and never the width itself."""
    found = candidate_widths(width, round_to)

    assert len(found) <= 5
    assert all(0 < w < width and w % round_to == 0 for w in found)
    assert list(found) == sorted(set(found), reverse=True)


def test_group_that_saves_for_less_is_cut() -> None:
    """A group that costs nothing in time stays whole, however little its channels matter."""
    table = Table(
        1.0,
        {
            "slow": (Width(32, 0.2, 0.01), Width(16, 0.4, 0.3)),
            "free": (Width(32, 0.0, 0.0001), Width(16, 0.0, 0.0002)),
            "dear": (Width(64, 0.2, 0.02),),
        },
    )

    assert picked(table, 0.2) == {"slow": 32}
    assert picked(table, 0.4) == {"slow": 32, "dear": 64}
    assert picked(table, 5.0) == {"slow": 16, "dear": 64}


def test_saving_inside_the_noise_is_none() -> None:
    """Of rounds that scatter around nothing the median says nothing; of a clear saving it is kept."""
    noise = np.random.default_rng(0).normal(0.0, 0.05, 21)

    assert _share(noise - np.median(noise) + 0.001) == 0.0
    assert _share(noise - np.median(noise) + 0.2) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("params", "least_s", "most_s"),
    [({"epochs": 0, "scope": "global"}, 1, 30), ({"epochs": 3, "minutes": 3.0, "scope": "latency"}, 200, 300)],
)
def test_training_declares_its_minutes(params: dict[str, Scalar], least_s: float, most_s: float) -> None:
    """So that a search weighs the first one; without training it is seconds."""
    defaults = {name: domain.default for name, domain in TECHNIQUE.parameters.items()}

    assert least_s < TECHNIQUE.build_s({**defaults, **params}) < most_s
