"""Whole studies in a simulated world: what holds whatever the world is, and wherever a run is cut off."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from autopilot.budget import Judgement
from autopilot.contracts import Slot
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.observer import NullObserver, Observer
from autopilot.recipe import Variant
from autopilot.result import Status, StudyResult, TrialState
from autopilot.search import conclude, decide, loop, samples, start
from autopilot.search.database import Database
from autopilot.search.sampler import RUNNABLE, Sampler
from autopilot.search.samples import Samples
from autopilot.search.state import RunState
from autopilot.space import SearchSpace
from autopilot.spec import SearchSpec
from tests.unit.search_support import (
    SPACE,
    Facts,
    FakeEvaluator,
    Recorder,
    World,
    random_world,
    setup_of,
    space_of,
    technique,
)


class Killed(BaseException):
    """The process ends here: no clean-up of the study may run."""


class Clock:
    """Counts the study's writes and measurements, and ends it at one of them."""

    def __init__(self, end: int | None = None) -> None:
        self.now = 0
        self.end = end

    def tick(self) -> None:
        self.now += 1
        if self.now == self.end:
            raise Killed

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            done = call(*args, **kwargs)
            self.tick()
            return done

        return watched


@contextlib.contextmanager
def simulated(
    world: World, space: SearchSpace, clock: Clock, parts: Mapping[str, str] | None = None
) -> Iterator[list[FakeEvaluator]]:
    """The loop with a simulated evaluator, no MLflow and no files of results; ``parts``: the question's identity."""
    made: list[FakeEvaluator] = []

    def evaluator(setup: Any, observer: Any) -> FakeEvaluator:
        made.append(FakeEvaluator(setup, observer, world, on_event=clock.tick))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "Evaluator", evaluator)
        patch.setattr(loop, "Sampler", lambda **given: made[-1].learns(Sampler(**given)))
        patch.setattr(start, "resolve_model", lambda problem, work: Path("model.onnx"))
        patch.setattr(start, "inspect", lambda path: setup_of(Path()).info)
        patch.setattr(start, "identity", lambda problem, files: dict(parts or {"spec": "same"}))
        patch.setattr(
            start, "prepare", lambda problem, work, observer: setup_of(work, space=space, search=problem.search)
        )
        patch.setattr(loop.RunningStudy, "_open_tracker", lambda self: None)
        patch.setattr(conclude, "write_outputs", lambda result, out, artifact, **more: result)
        for owner, name in (
            (Database, "change"),
            (RunState, "save"),
            (samples, "save_record"),
            (Path, "replace"),
        ):
            patch.setattr(owner, name, clock.around(getattr(owner, name)))
        if clock.end is not None:
            patch.setattr(loop.RunningStudy, "stopped", lambda self, by_user: None)
        yield made


def run(
    folder: Path,
    world: World,
    *,
    space: SearchSpace = SPACE,
    search: SearchSpec | None = None,
    clock: Clock | None = None,
    observer: Observer | None = None,
    parts: Mapping[str, str] | None = None,
) -> tuple[StudyResult, list[FakeEvaluator]]:
    """One simulated run in ``folder``."""
    search = search or SearchSpec(trials=10, timeout_s=600.0)
    problem = setup_of(folder, space=space, search=search).problem
    with simulated(world, space, clock or Clock(), parts) as made:
        result = start.run_study(problem, folder / "out", fresh=False, observer=observer or NullObserver())
    return result, made


def kept(folder: Path) -> list[dict[str, Any]]:
    """The records in the ledger, in order."""
    return [json.loads(body) for (body,) in asked(folder, "SELECT body FROM autopilot_records ORDER BY number")]


def states(folder: Path) -> set[str]:
    """The states that claims are in."""
    return {state for (state,) in asked(folder, "SELECT state FROM autopilot_claims")}


def asked(folder: Path, query: str) -> list[Any]:
    """Rows of the ledger; none where it isn't there or was cut off while it was made."""
    file = folder / "out" / start.WORK / "ledger.db"
    if not file.exists():
        return []
    with contextlib.closing(sqlite3.connect(file)) as db, contextlib.suppress(sqlite3.OperationalError):
        return db.execute(query).fetchall()
    return []


def check(result: StudyResult, world: World) -> None:
    """What holds of every result."""
    assert [t.number for t in result.trials] == list(range(len(result.trials)))
    assert result.trials[0].variant.recipe.steps == ()
    ids = [t.id for t in result.trials if t.state is not TrialState.DUPLICATE]
    assert len(ids) == len(set(ids))
    if result.best is not None:
        assert result.status is Status.IN_BUDGET
        assert result.best.verdict is not None
        assert result.best.verdict.overall is Judgement.IN
        truth = world(Variant(result.best.recipe, result.best.deployment))
        drop = truth.drop if truth.drop_later is None else truth.drop_later
        assert truth.ratio + truth.noise <= 0.6
        assert drop + 0.001 <= 0.01
    else:
        assert result.nearest is not None
        assert result.nearest.verdict is not None
        is_out = result.nearest.verdict.overall is Judgement.OUT
        assert result.status is (Status.NO_FIT if is_out else Status.UNDECIDED)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=4, deadline=None, phases=[Phase.generate])
def test_run_measures_no_variant_twice_and_the_winner_holds(seed: int) -> None:
    """In any world: one measurement a variant, the same constraints on complete trials, a winner that is in."""
    world = random_world(seed)
    with tempfile.TemporaryDirectory() as name:
        result, (evaluator,) = run(Path(name), world)
        ended = states(Path(name))

    check(result, world)
    screened = [v for v, later in evaluator.asked if not later]
    crashed = [t.id for t in result.trials if t.failure is Failure.CRASH]
    assert sorted(screened) == sorted([*set(screened), *crashed])  # a crash is tried once more
    complete = [set(t.constraints) for t in evaluator.told if t.state is optuna.trial.TrialState.COMPLETE]
    assert all(keys == {"latency_p50_ms", "quality_drop", RUNNABLE} for keys in complete)
    assert not any(t.state is optuna.trial.TrialState.RUNNING for t in evaluator.told)
    assert ended == {"done"}


@given(seed=st.integers(0, 10_000), data=st.data())
@settings(max_examples=3, deadline=None, phases=[Phase.generate])
def test_run_loses_nothing_wherever_it_was_cut_off(seed: int, data: st.DataObject) -> None:
    """A kill at any write or measurement costs the trial that was running, at most."""
    world = random_world(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = Clock()
        run(folder / "whole", world, clock=whole)
        # The last two ticks come after the state says that the run has finished: then there is nothing to go on with.
        end = data.draw(st.integers(1, whole.now - 2), label="killed at")
        with contextlib.suppress(Killed):
            run(folder / "cut", world, clock=Clock(end))
        before = kept(folder / "cut")
        result, made = run(folder / "cut", world)
        ended = states(folder / "cut")

    check(result, world)
    assert len(result.trials) == 10
    assert [t.id for t in result.trials][: len(before)] == [r["id"] for r in before]
    known = {r["id"] for r in before}
    assert not known & {v for v, later in made[-1].asked if not later}
    assert ended == {"done"}


def test_known_good_variants_are_tried_after_a_kill_before_they_were_queued(tmp_path: Path) -> None:
    """The first writes of a run are the baseline's record and the queue: a kill between them loses neither."""
    space = space_of(technique("int8", Slot.PRECISION, prefer=lambda target: ({"kind": "c"}, {"kind": "b"})))
    queued: list[Any] = []
    for end in range(3, 30, 3):
        folder = tmp_path / str(end)
        with contextlib.suppress(Killed):
            run(folder, lambda v: Facts(), space=space, clock=Clock(end))
        result, _ = run(folder, lambda v: Facts(), space=space, search=SearchSpec(trials=3, timeout_s=600.0))
        queued.append({dict(t.variant.recipe.steps[0].params)["kind"] for t in result.trials[1:3]})

    assert all(kinds == {"b", "c"} for kinds in queued)


def test_run_of_one_trial_verifies_the_model_as_given(tmp_path: Path) -> None:
    """With nothing to search the baseline itself is judged, by a second measurement."""
    result, (evaluator,) = run(tmp_path, lambda v: Facts(0.5), search=SearchSpec(trials=1, timeout_s=600.0))

    assert len(result.trials) == 1
    assert result.status is Status.IN_BUDGET
    assert evaluator.asked == [(result.trials[0].id, True)]


def test_run_ends_when_the_space_has_one_variant(tmp_path: Path) -> None:
    """Nothing to choose is no endless search."""
    result, _ = run(tmp_path, lambda v: Facts(1.0), space=space_of(arena=(True,)))

    assert len(result.trials) == 1
    assert result.status is Status.NO_FIT


def test_run_without_time_measures_and_verifies_the_baseline_alone(tmp_path: Path) -> None:
    """A baseline that takes all the time still gets its verdict."""
    watcher = Recorder()
    result, _ = run(tmp_path, lambda v: Facts(0.5), search=SearchSpec(trials=10, timeout_s=0.001), observer=watcher)

    assert len(result.trials) == 1
    assert result.status is Status.IN_BUDGET
    assert any("time is up" in note for note in watcher.notes)


def test_run_ends_with_no_fit_when_every_finalist_fails(tmp_path: Path) -> None:
    """What held when screened and is out when measured again is no nearest miss that keeps every limit."""

    def world(variant: Variant) -> Facts:
        return Facts(0.4, drop_later=0.012) if variant.recipe.steps else Facts(1.0)

    result, _ = run(tmp_path, world)

    assert result.status is Status.NO_FIT
    assert result.nearest is not None
    assert result.nearest.verdict is not None
    assert result.nearest.verdict.per_limit["quality_drop"] is Judgement.OUT
    assert "did not hold" in result.explanation
    assert "measured again: quality_drop out" in {t.reason for t in result.trials}


def test_unstable_machine_ends_the_search_and_leaves_it_undecided(tmp_path: Path) -> None:
    """Three trials in a row that the machine spoilt: no verdict, and the sampler learns nothing from them."""
    watcher = Recorder()
    result, (evaluator,) = run(
        tmp_path, lambda v: Facts(failure=Failure.UNSTABLE) if v.recipe.steps else Facts(1.0), observer=watcher
    )

    failures = [t.failure for t in result.trials]
    assert failures.count(Failure.UNSTABLE) >= 3
    assert failures[-3:] == [Failure.UNSTABLE] * 3
    assert result.status is Status.UNDECIDED
    assert any("too unstable" in note for note in watcher.notes)
    spoilt = [t for t in evaluator.told if t.params.get("precision", "none") != "none"]
    assert {t.state for t in spoilt} == {optuna.trial.TrialState.FAIL}


def test_trial_that_the_studys_end_stopped_is_no_timeout_of_its_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child killed since time was up says nothing about its variant, and a later run tries it again."""
    measure = FakeEvaluator.measure

    def slow(self: FakeEvaluator, variant: Variant, *args: Any, **kwargs: Any) -> Any:
        if variant.recipe.steps and self.allowance.deadline is not None:
            time.sleep(max(0.0, self.allowance.left_s))
            raise VariantFailed(Failure.TIMEOUT, "stopped.")
        return measure(self, variant, *args, **kwargs)

    monkeypatch.setattr(FakeEvaluator, "measure", slow)
    result, _ = run(tmp_path, lambda v: Facts(0.5), search=SearchSpec(trials=10, timeout_s=2.0))

    assert all(t.failure is None for t in result.trials)


def test_only_trial_that_the_studys_end_stopped_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant was tried then, and its seconds are not the baseline's: the advice is to give it more than it had."""
    measure = FakeEvaluator.measure

    def slow(self: FakeEvaluator, *args: Any, **kwargs: Any) -> Any:
        if self.allowance.deadline is not None:
            time.sleep(max(0.0, self.allowance.left_s))
            raise VariantFailed(Failure.TIMEOUT, "stopped.")
        return measure(self, *args, **kwargs)

    monkeypatch.setattr(FakeEvaluator, "measure", slow)
    result, _ = run(tmp_path, lambda v: Facts(1.0), search=SearchSpec(trials=10, timeout_s=2.0))

    assert len(result.trials) == 1
    assert result.status is Status.UNDECIDED
    assert re.search(r"time is up.*, and the trial of .+ on cpu, .+ was cut off after \d s$", result.ended)
    assert re.search(r"No variant came to its end: .*took \d s of its 2 s, and the trial of", result.explanation)
    assert "was tried" not in result.explanation


def test_bad_input_found_late_keeps_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with trials in it is not cleared away because the held-back data turn out to be wrong."""

    def fails(self: FakeEvaluator, *args: Any, **kwargs: Any) -> Any:
        raise DataError("the test labels are wrong.")

    with monkeypatch.context() as patch:
        patch.setattr(decide, "verify", fails)
        with pytest.raises(DataError):
            run(tmp_path, lambda v: Facts(0.5))
    result, (evaluator,) = run(tmp_path, lambda v: Facts(0.5))

    assert len(result.trials) == 10
    assert [later for _, later in evaluator.asked].count(False) == 0


def test_unsupported_by_a_provider_is_no_dead_end_of_the_recipe(tmp_path: Path) -> None:
    """Only what fails to build is never tried in another deployment."""
    space = space_of(technique("int8", Slot.PRECISION, parameters={}), arena=(True, False))

    def world(variant: Variant) -> Facts:
        refused = variant.recipe.steps and dict(variant.deployment.options)["arena"]
        return Facts(0.5, failure=Failure.UNSUPPORTED if refused else None)

    result, _ = run(tmp_path, world, space=space)

    built = [t for t in result.trials if t.variant.recipe.steps]
    assert {(t.state, t.stage) for t in built} == {(TrialState.FAILED, "profile"), (TrialState.COMPLETE, "verify")}


def test_samples_of_screening_and_verification_are_kept(tmp_path: Path) -> None:
    """Both verdicts of the winner can be computed again."""
    result, _ = run(tmp_path, lambda v: Facts(0.5), search=SearchSpec(trials=3, timeout_s=600.0))

    assert result.best is not None
    folder = tmp_path / "out" / start.WORK / "samples"
    for name in (f"{result.best.number}.npz", f"{result.best.number}-verify.npz"):
        kept = Samples.load(folder / name)
        assert kept.profile.latency is not None
        assert kept.profile.baseline_latency is not None
        assert kept.verdict is not None


def test_run_that_goes_on_keeps_the_readings_of_its_new_baseline(tmp_path: Path) -> None:
    """Ratios after that are to those; trial 0's stay as they were."""
    with contextlib.suppress(Killed):
        run(tmp_path, lambda v: Facts(0.5), clock=Clock(60))
    folder = tmp_path / "out" / start.WORK / "samples"
    first = (folder / "0.npz").read_bytes()
    assert not list(folder.glob("baseline-*"))

    _, (evaluator,) = run(tmp_path, lambda v: Facts(0.5))

    assert [f.stem for f in folder.glob("baseline-*")] == [evaluator.baseline_samples]
    assert (folder / "0.npz").read_bytes() == first


def test_interrupted_run_says_how_long_it_took(tmp_path: Path) -> None:
    """The time of the first part counts: a resumed study has no fresh budget of time."""
    with contextlib.suppress(Killed):
        run(tmp_path, lambda v: Facts(0.5), clock=Clock(60))
    work = tmp_path / "out" / start.WORK
    state = RunState.load(work)
    assert state is not None
    replace(state, elapsed_s=10_000.0).save(work)
    watcher = Recorder()
    result, _ = run(tmp_path, lambda v: Facts(0.5), observer=watcher)

    assert len(result.trials) < 10
    assert result.elapsed_s >= 10_000
    assert any("time is up" in note for note in watcher.notes)


def test_time_kept_for_the_finalists_follows_what_trials_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first guess that was too small is made good as soon as trials tell: the search then ends, and says for what."""
    kept = iter([0.0, 0.0, 0.0, 600.0])
    known: list[int] = []

    def reserve(setup: Any, records: Any, ranking: Any, baseline: Any) -> float:
        known.append(len(records))
        return next(kept)

    monkeypatch.setattr(loop, "reserve_s", reserve)
    watcher = Recorder()
    result, (evaluator,) = run(
        tmp_path, lambda v: Facts(0.5), search=SearchSpec(trials=10, timeout_s=600.0), observer=watcher
    )

    assert known == [1, 2, 3, 4]
    assert len(result.trials) == 4
    assert re.fullmatch(r"time is up, but for \d+ s to measure the finalists again", result.ended)
    assert any(result.ended in note for note in watcher.notes)
    assert evaluator.allowance.deadline is None  # finalists are not cut off by it


@pytest.mark.parametrize(
    ("kept_s", "takes"), [(300.0, "some 300 s"), (360.0, "360 s or more")], ids=["what it takes", "no more is kept"]
)
def test_study_whose_time_one_finalist_takes_is_told_so_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_s: float, takes: str
) -> None:
    """The user may give it more before hours are over."""
    monkeypatch.setattr(loop, "reserve_s", lambda *given: kept_s)
    watcher = Recorder()
    run(tmp_path, lambda v: Facts(0.5), observer=watcher)

    assert any(f"should take {takes}, most of the study's time: give it more" in note for note in watcher.notes)


def failing(monkeypatch: pytest.MonkeyPatch, failure: Failure, at_s: float | None = None) -> list[str]:
    """Every variant but the baseline fails in its latency pass, ``at_s`` after the search's time; who was tried."""
    measure, asked = FakeEvaluator.measure, list[str]()

    def fails(self: FakeEvaluator, variant: Variant, *args: Any, **kwargs: Any) -> Any:
        if not variant.recipe.steps or self.allowance.deadline is None:
            return measure(self, variant, *args, **kwargs)
        asked.append(variant.id)
        if at_s is not None:
            time.sleep(max(0.0, self.allowance.left_s + at_s))
        error = VariantFailed(failure, "simulated.")
        error.seconds = {"load": 1.0, "profile": 30.0}
        raise error

    monkeypatch.setattr(FakeEvaluator, "measure", fails)
    return asked


def test_failed_trial_keeps_the_seconds_of_each_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hung in the latency pass is no price of loading, which every trial pays."""
    failing(monkeypatch, Failure.OOM)
    result, _ = run(tmp_path, lambda v: Facts(0.5), search=SearchSpec(trials=4, timeout_s=600.0))
    failed = [t for t in result.trials if t.failure is Failure.OOM]

    assert failed
    assert all(t.seconds == {"build": 0.1, "load": 1.0, "profile": 30.0} for t in failed)


def test_trial_that_crashes_after_the_end_is_not_tried_again_and_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second attempt would only make the study late; a run that goes on has the time for it."""
    asked = failing(monkeypatch, Failure.CRASH, at_s=0.01)
    result, _ = run(tmp_path, lambda v: Facts(0.5), search=SearchSpec(trials=10, timeout_s=2.0))

    assert len(asked) == len(set(asked))
    assert all(t.failure is None for t in result.trials)
