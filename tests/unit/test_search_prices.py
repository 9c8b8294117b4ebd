"""What a build should cost: learned by technique, with what is there already for nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from autopilot.contracts import Slot, Technique
from autopilot.domain import Int
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.prices import BuildPrices


def technique(name: str, **more: object) -> Technique:
    return Technique(
        name=name,
        slot=Slot.STRUCTURE,
        version=1,
        parameters={"effort": Int(0, 5, 0)},
        apply=lambda source, folder, params, context: None,
        summary=name,
        **more,  # type: ignore[arg-type]
    )


TECHNIQUES = {
    "plain": technique("plain"),
    "other": technique("other"),
    "trains": technique("trains", work=lambda params: 10.0 * 2.0 ** int(str(params["effort"])), continues="effort"),
}


def step(name: str, **params: int) -> Step:
    return Step(name, params_of({"effort": 0, **params}))


def record(number: int, recipe: Recipe, build_s: float) -> TrialRecord:
    variant = Variant(recipe, Deployment("cpu", 1, 1))
    seconds: Mapping[str, float] = {"build": build_s}
    return TrialRecord(str(number), number, TrialState.COMPLETE, None, "", "quality", variant, seconds=seconds)


def learned(*told: tuple[Recipe, float], usual_s: float = 2.0) -> BuildPrices:
    records = [record(k, recipe, seconds) for k, (recipe, seconds) in enumerate(told)]
    return BuildPrices.learn(records, usual_s, lambda: TECHNIQUES)


def test_training_never_seen_is_dearer_than_a_usual_build_by_its_work() -> None:
    """Before any training was seen its declared work times a usual build is the guess."""
    prices = learned()

    assert prices.seconds(Recipe()) == 0.0
    assert prices.seconds(Recipe((step("plain"),))) == 2.0
    assert prices.seconds(Recipe((step("trains", effort=1),))) == 40.0


def test_price_of_a_technique_is_what_it_took() -> None:
    """The unit is learned from the builds of the technique itself; that of an unseen one from all."""
    prices = learned((Recipe((step("trains", effort=0),)), 50.0), (Recipe((step("plain"),)), 1.0))

    assert prices.seconds(Recipe((step("other"),))) == pytest.approx(51.0 / 11.0)
    assert prices.seconds(Recipe((step("plain", effort=1),))) == pytest.approx(1.0)
    # Five seconds a unit; two of ten units are paid already.
    assert prices.seconds(Recipe((step("trains", effort=2),))) == pytest.approx(150.0)


def test_parent_that_is_built_costs_nothing_again() -> None:
    """A step on a built parent costs itself alone; a recipe that is built costs nothing."""
    parent = step("trains", effort=1)
    prices = learned((Recipe((parent,)), 100.0))

    assert prices.seconds(Recipe((parent,))) == 0.0
    assert prices.seconds(Recipe((parent, step("plain")))) == pytest.approx(5.0)
    # The training on another parent is another one.
    assert prices.seconds(Recipe((step("plain"), parent))) == pytest.approx(105.0)


def test_build_of_several_steps_is_split_by_their_work() -> None:
    """Of one build with two fresh steps the longer one by declared work is charged more."""
    prices = learned((Recipe((step("trains", effort=0), step("plain"))), 22.0))

    assert prices.seconds(Recipe((step("plain", effort=3),))) == pytest.approx(2.0)
    assert prices.seconds(Recipe((step("other"), step("trains", effort=0)))) == pytest.approx(22.0)


def test_build_from_the_cache_teaches_nothing() -> None:
    """What took no time was there before: a price of zero would make its technique free."""
    prices = learned((Recipe((step("plain"),)), 0.001))

    assert prices.seconds(Recipe((step("plain", effort=1),))) == 2.0
