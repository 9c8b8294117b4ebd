"""The Optuna study behind the search: what it asks for and what it is told."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState

from autopilot.contracts import Slot, Technique
from autopilot.domain import Choice
from autopilot.recipe import Variant
from autopilot.search.sampler import RUNNABLE, Sampler, Told
from autopilot.space import SearchSpace

KIND = Choice(("a", "b", "c"))


@pytest.fixture
def space() -> SearchSpace:
    technique = Technique(
        name="int8",
        slot=Slot.PRECISION,
        version=1,
        parameters={"kind": KIND},
        apply=lambda source, folder, params, context: None,
        summary="",
    )
    return SearchSpace({"int8": (technique, {"kind": KIND})}, {"cpu": {}}, (1,), (1,))


def sampler(*, maximize: bool = False) -> Sampler:
    return Sampler(maximize=maximize, seed=0, limits=("latency_p50_ms", "size_mb"))


def test_ask_gives_queued_variants_first(space: SearchSpace) -> None:
    """Known-good variants come before the sampler's own ideas, in their order."""
    study = sampler()
    wanted = [
        Variant.from_json(
            {"recipe": [{"technique": "int8", "kind": k}], "deployment": {"provider": "cpu", "threads": 1, "batch": 1}}
        )
        for k in ("c", "a")
    ]
    for variant in wanted:
        study.enqueue(space, variant)

    assert [study.ask(space)[1] for _ in wanted] == wanted


def test_tell_stores_one_constraint_a_limit(space: SearchSpace) -> None:
    """Every complete trial carries the same constraints, or some samplers refuse them."""
    study = sampler()
    trial, _ = study.ask(space)

    study.tell(trial, Told((0.5,), {"size_mb": 0.3}))

    told = study.trials[0]
    assert told.state is TrialState.COMPLETE
    assert told.constraints == {"latency_p50_ms": 0.0, "size_mb": 0.3, RUNNABLE: 0.0}


def test_failed_trials_stay_visible_to_the_sampler(space: SearchSpace) -> None:
    """FAIL would hide an unsupported variant from the sampler, which would try it for ever."""
    study = sampler()
    trial, _ = study.ask(space)

    study.tell(trial, Told(runnable=False))

    assert study.trials[0].state is TrialState.PRUNED
    assert study.trials[0].constraints[RUNNABLE] == 1.0


def test_unbounded_objective_is_told_as_a_finite_bad_value(space: SearchSpace) -> None:
    """An infinite objective must not end the study."""
    study = sampler(maximize=True)
    trial, _ = study.ask(space)

    study.tell(trial, Told((float("-inf"),)))

    assert study.trials[0].value == -1e12


def test_learn_is_as_good_as_having_asked(space: SearchSpace) -> None:
    """What other runs found, or this one before it was cut off, is known as if this sampler had asked for it."""
    asked, taught = sampler(), sampler()
    for values in ((0.5,), None):
        trial, variant = asked.ask(space)
        told = Told(values, {"size_mb": 0.3})
        asked.tell(trial, told)
        taught.learn(space, variant, told)

    facts = [[(t.state, t.value, t.params, t.constraints) for t in study.trials] for study in (asked, taught)]
    assert facts[0] == facts[1]


def test_learnt_variant_is_not_queued_again(space: SearchSpace) -> None:
    """A resume queues what is known to be good; what was tried already is left out."""
    study = sampler()
    _, variant = sampler().ask(space)
    study.learn(space, variant, Told((1.0,)))

    study.enqueue(space, variant)

    assert [t.state for t in study.trials] == [TrialState.COMPLETE]


def test_learn_leaves_out_what_the_space_does_not_have(space: SearchSpace) -> None:
    """A record of a wider space, or of a plug-in that is gone, doesn't end the search."""
    study = sampler()
    deployment = {"provider": "cpu", "threads": 1, "batch": 1}
    for step in ({"technique": "int8", "kind": "z"}, {"technique": "other"}):
        study.learn(space, Variant.from_json({"recipe": [step], "deployment": deployment}), Told((1.0,)))

    assert study.trials == []


def test_enqueue_unseen_finds_what_is_left_and_then_says_so(space: SearchSpace) -> None:
    """A used-up space is noticed instead of being sampled for ever."""
    study = sampler()
    seen: dict[str, object] = {}
    while study.enqueue_unseen(space, lambda variant: variant.id not in seen):
        _, variant = study.ask(space)
        assert variant.id not in seen
        seen[variant.id] = variant

    assert len(seen) == 4


def variants(*kinds: str) -> list[Variant]:
    deployment = {"provider": "cpu", "threads": 1, "batch": 1}
    return [Variant.from_json({"recipe": [{"technique": "int8", "kind": k}], "deployment": deployment}) for k in kinds]


def test_guided_study_asks_what_was_chosen_after_what_was_queued(space: SearchSpace) -> None:
    """The queue goes first and costs no choice; then every trial is the chosen variant, to the last parameter."""
    study = sampler()
    chosen = variants("b", "a", "b")
    left = iter(chosen)
    study.guide(space, lambda: next(left))
    queued = variants("c")
    study.enqueue(space, queued[0])

    assert [study.ask(space)[1] for _ in range(4)] == queued + chosen


def test_guided_study_draws_where_nothing_is_chosen(space: SearchSpace) -> None:
    """No choice, or one that the space can't give: a variant of the space all the same."""
    study = sampler()
    study.guide(space, lambda: None)
    assert study.ask(space)[1] in [
        *variants("a", "b", "c"),
        Variant.from_json(variants("a")[0].to_json() | {"recipe": []}),
    ]

    study.guide(space, lambda: variants("elsewhere")[0])
    assert study.ask(space)[1] != variants("elsewhere")[0]
