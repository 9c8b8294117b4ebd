"""Stages: their prices and kill rates from the records, and the cheapest order."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.recipe import Deployment, Recipe, Step, Variant
from autopilot.result import StageCost, TrialRecord, TrialState
from autopilot.search.stages import Screen, order, stage_costs


def trial(number: int, state: TrialState, **seconds: float) -> TrialRecord:
    variant = Variant(Recipe((Step("slim"),)), Deployment("cpu", 1, 1))
    return TrialRecord(variant.id, number, state, None, "", "quality", variant, seconds=seconds)


def test_costs_count_runs_seconds_and_the_stage_that_ended_a_trial() -> None:
    """Two trials through the load, one ended by it; the baseline and a duplicate count for nothing."""
    records = [
        trial(0, TrialState.COMPLETE, load=9.0, profile=9.0, evaluate=9.0),
        trial(1, TrialState.PRUNED, build=1.0, load=0.5),
        trial(2, TrialState.COMPLETE, load=1.5, profile=2.0, evaluate=3.0),
        trial(3, TrialState.DUPLICATE, load=7.0),
    ]

    found = {c.stage: c for c in stage_costs(records)}

    assert found[Screen.LOAD] == StageCost(Screen.LOAD, 2, 2.0, 1)
    assert found[Screen.LOAD].price_s == 1.0
    assert found[Screen.LOAD].kill_rate == 0.5
    assert found[Screen.BUILD].killed == 0
    assert found[Screen.QUALITY] == StageCost(Screen.QUALITY, 1, 3.0, 0)
    assert found[Screen.ENERGY].price_s is None
    assert StageCost.from_json(found[Screen.LOAD].to_json()) == found[Screen.LOAD]


def test_price_of_what_a_cache_saved_is_what_it_once_took() -> None:
    """A hit costs nothing, but the next build will."""
    found = {c.stage: c for c in stage_costs([trial(1, TrialState.COMPLETE, build=0.0, build_saved=4.0)])}

    assert found[Screen.BUILD].price_s == 4.0
    assert found[Screen.BUILD].seconds == 0.0


def test_order_asks_the_cheap_killer_first() -> None:
    """Scoring that costs a tenth and ends half of the trials comes before latency that ends none."""
    costs = [StageCost(Screen.LATENCY, 20, 40.0, 0), StageCost(Screen.QUALITY, 20, 4.0, 10)]

    assert order(costs, {}) == (Screen.LOAD, Screen.QUALITY, Screen.LATENCY, Screen.ENERGY)


def test_order_goes_by_the_expected_price_before_anything_was_run() -> None:
    """With a slow model scoring is dear, with a quick one it is cheap."""
    slow = order([], {Screen.QUALITY: 20.0, Screen.LATENCY: 1.5})
    quick = order([], {Screen.QUALITY: 0.2, Screen.LATENCY: 1.5})

    assert slow.index(Screen.LATENCY) < slow.index(Screen.QUALITY)
    assert quick.index(Screen.QUALITY) < quick.index(Screen.LATENCY)


runs = st.integers(0, 50)


@given(runs, runs, st.floats(0.01, 30), st.floats(0.01, 30), st.data())
def test_order_is_the_cheapest_of_all_orders(a: int, b: int, a_s: float, b_s: float, data: st.DataObject) -> None:
    """No other order has a smaller expected cost, with the smoothed rates that it goes by."""
    killed = (data.draw(st.integers(0, a)), data.draw(st.integers(0, b)))
    costs = {
        Screen.LATENCY: StageCost(Screen.LATENCY, a, a * a_s, killed[0]),
        Screen.QUALITY: StageCost(Screen.QUALITY, b, b * b_s, killed[1]),
    }
    expected_s = {Screen.LATENCY: a_s, Screen.QUALITY: b_s}

    def cost_s(stages: tuple[Screen, ...]) -> float:
        total, alive = 0.0, 1.0
        for stage in stages:
            cost = costs[stage]
            total += alive * (expected_s[stage] if cost.price_s is None else cost.price_s)
            alive *= 1 - (cost.killed + 2 / 3) / (cost.runs + 2.0)
        return total

    chosen = tuple(s for s in order(list(costs.values()), expected_s) if s in costs)
    assert cost_s(chosen) <= min(cost_s(p) for p in permutations(costs)) * (1 + 1e-9)


@pytest.mark.parametrize("screen", [Screen.LOAD, Screen.LATENCY, Screen.ENERGY, Screen.QUALITY])
def test_order_has_every_stage_once(screen: Screen) -> None:
    """Whatever the prices, nothing is left out or asked twice, and the load comes first."""
    found = order([StageCost(screen, 5, 100.0, 0)], {})

    assert found[0] is Screen.LOAD
    assert sorted(found) == sorted([Screen.LOAD, Screen.LATENCY, Screen.ENERGY, Screen.QUALITY])
