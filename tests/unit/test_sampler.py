"""The Optuna study behind the search: what it is told and what survives a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from autopilot.contracts import Slot, Technique
from autopilot.domain import Choice
from autopilot.recipe import Variant
from autopilot.search.sampler import RUNNABLE, Sampler
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


def sampler(folder: Path, *, maximize: bool = False) -> Sampler:
    return Sampler(folder, "study", maximize=maximize, seed=0, limits=("latency_p50_ms", "size_mb"))


def test_ask_gives_queued_variants_first(tmp_path: Path, space: SearchSpace) -> None:
    """Known-good variants come before the sampler's own ideas, in their order."""
    study = sampler(tmp_path)
    wanted = [
        Variant.from_json(
            {"recipe": [{"technique": "int8", "kind": k}], "deployment": {"provider": "cpu", "threads": 1, "batch": 1}}
        )
        for k in ("c", "a")
    ]
    for variant in wanted:
        study.enqueue(space, variant)

    assert [study.ask(space)[1] for _ in wanted] == wanted


def test_tell_measured_stores_one_constraint_a_limit(tmp_path: Path, space: SearchSpace) -> None:
    """Every complete trial carries the same constraints, or some samplers refuse them."""
    study = sampler(tmp_path)
    trial, _ = study.ask(space)

    study.tell_measured(trial, {"x": 1}, value=0.5, violations={"size_mb": 0.3})

    told = study.trials[0]
    assert told.state is TrialState.COMPLETE
    assert told.constraints == {"latency_p50_ms": 0.0, "size_mb": 0.3, RUNNABLE: 0.0}


def test_failed_trials_stay_visible_to_the_sampler(tmp_path: Path, space: SearchSpace) -> None:
    """FAIL would hide an unsupported variant from the sampler, which would try it for ever."""
    study = sampler(tmp_path)
    trial, _ = study.ask(space)

    study.tell_failed(trial, {"x": 1})

    assert study.trials[0].state is TrialState.PRUNED
    assert study.trials[0].constraints[RUNNABLE] == 1.0


def test_sampler_turns_away_from_what_never_runs(tmp_path: Path, space: SearchSpace) -> None:
    """After a technique failed every time, most draws leave it out."""
    study = sampler(tmp_path)
    tried = []
    for _ in range(40):
        trial, variant = study.ask(space)
        tried.append(bool(variant.recipe.steps))
        if variant.recipe.steps:
            study.tell_failed(trial, None)
        else:
            study.tell_measured(trial, {}, value=1.0, violations={})

    assert sum(tried[20:]) <= 10


def test_unbounded_objective_is_told_as_a_finite_bad_value(tmp_path: Path, space: SearchSpace) -> None:
    """An infinite objective must not end the study."""
    study = sampler(tmp_path, maximize=True)
    trial, _ = study.ask(space)

    study.tell_measured(trial, {}, value=float("-inf"), violations={})

    assert study.trials[0].value == -1e12


def test_recover_gives_finished_records_and_ends_stale_trials(tmp_path: Path, space: SearchSpace) -> None:
    """A killed run leaves its last trial running: on resume it ends and is queued again, finished ones are kept."""
    first = sampler(tmp_path)
    trial, _ = first.ask(space)
    first.tell_measured(trial, {"n": 0}, value=1.0, violations={})
    _, cut_off = first.ask(space)

    again = sampler(tmp_path)

    assert again.recover() == [{"n": 0}]
    assert [t.state for t in again.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    assert again.ask(space)[1] == cut_off


def test_recover_gives_up_a_trial_that_was_cut_off_twice(tmp_path: Path, space: SearchSpace) -> None:
    """A variant that takes the machine down is not tried at every resume."""
    study = sampler(tmp_path)
    study.ask(space)
    for _ in range(2):
        study = sampler(tmp_path)
        study.recover()
        if study.trials[-1].state is TrialState.WAITING:
            study.ask(space)

    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.FAIL]


def test_recover_keeps_a_record_stored_just_before_the_kill(tmp_path: Path, space: SearchSpace) -> None:
    """Between storing the record and telling Optuna nothing may be lost, for Optuna neither."""
    first = sampler(tmp_path)
    for value in (0.25, None):
        trial, _ = first.ask(space)
        trial.set_user_attr("value", value)
        trial.set_user_attr("record", '{"n": 7}')
    again = sampler(tmp_path)

    assert again.recover() == [{"n": 7}, {"n": 7}]
    assert [(t.state, t.value) for t in again.trials] == [(TrialState.COMPLETE, 0.25), (TrialState.PRUNED, None)]


def test_enqueue_unseen_finds_what_is_left_and_then_says_so(tmp_path: Path, space: SearchSpace) -> None:
    """A used-up space is noticed instead of being sampled for ever."""
    study = sampler(tmp_path)
    seen: dict[str, object] = {}
    while study.enqueue_unseen(space, lambda variant: variant.id not in seen):
        _, variant = study.ask(space)
        assert variant.id not in seen
        seen[variant.id] = variant

    assert len(seen) == 4
