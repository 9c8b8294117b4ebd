"""What a build should cost: steps in the cache nothing, a training its declared minutes until one was seen."""

from __future__ import annotations

from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.build_costs import BuildCosts

PRUNE, WIDER = (Step("prune", params_of({"ratio": r})) for r in (0.3, 0.5))
INT8, FUSE = Step("int8"), Step("fuse")
USUAL_S = 2.0


def declared(step: Step) -> float:
    return 200.0 if step.technique == "prune" else 0.0


def record(number: int, *steps: Step, build_s: float) -> TrialRecord:
    variant = Variant(Recipe(steps), Deployment("cpu", 1))
    seconds = {"build": build_s}
    return TrialRecord(
        variant.id,
        number,
        TrialState.COMPLETE,
        None,
        "",
        "quality",
        variant,
        measured={},
        verdict=None,
        seconds=seconds,
    )


def costs(*records: TrialRecord) -> BuildCosts:
    return BuildCosts.of(records, declared)


def test_training_costs_what_it_declares_before_one_was_seen() -> None:
    """The first training is weighed with its minutes, not with a quick build's seconds."""
    known = costs(record(1, INT8, build_s=1.0))

    assert known.seconds(Recipe((PRUNE, FUSE)), USUAL_S) == 200.0 + USUAL_S
    assert known.seconds(Recipe((PRUNE, INT8)), USUAL_S) == 201.0


def test_steps_in_the_cache_cost_nothing_again() -> None:
    """After one recipe was built, another that begins alike costs its last step alone."""
    known = costs(record(1, PRUNE, INT8, build_s=100.0))

    assert known.seconds(Recipe((PRUNE, INT8)), USUAL_S) == 0.0
    assert known.seconds(Recipe((PRUNE, FUSE)), USUAL_S) == USUAL_S
    assert known.seconds(Recipe((PRUNE,)), USUAL_S) == 0.0


def test_seen_training_scales_what_others_declare() -> None:
    """One that took half of its declared seconds halves what is expected of the next."""
    known = costs(record(1, PRUNE, INT8, build_s=100.0))

    assert known.seconds(Recipe((WIDER,)), USUAL_S) == 100.0


def test_training_before_it_is_not_charged_to_the_last_step() -> None:
    """The minutes of a training don't make the quantization after it look dear."""
    known = costs(record(1, PRUNE, INT8, build_s=100.0), record(2, PRUNE, FUSE, build_s=3.0))

    assert known.seconds(Recipe((INT8,)), USUAL_S) == USUAL_S
    assert known.seconds(Recipe((FUSE,)), USUAL_S) == 3.0


def test_build_out_of_the_cache_tells_nothing() -> None:
    """Some milliseconds are no training's price."""
    known = costs(record(1, PRUNE, build_s=0.01))

    assert known.seconds(Recipe((WIDER,)), USUAL_S) == 200.0


def test_a_rung_that_continues_another_costs_half() -> None:
    """The rung below was half of the work, and its checkpoint is there."""
    low, high = (Recipe((Step("distill", (("effort", e), ("keep", 0.5))),)) for e in (2, 3))
    declared = {2: 100.0, 3: 200.0}

    def says(step: Step) -> float:
        return declared[int(str(dict(step.params)["effort"]))]

    costs = BuildCosts(frozenset({low.digest}), {}, {}, says)

    assert costs.seconds(high, 1.0) == 100.0
    assert BuildCosts(frozenset(), {}, {}, says).seconds(high, 1.0) == 200.0
    other = Recipe((Step("distill", (("effort", 3), ("keep", 0.3))),))
    assert costs.seconds(other, 1.0) == 200.0
