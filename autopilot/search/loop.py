"""The loop: ask, build, profile, judge, log, tell; then verify the finalists."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from optuna.trial import Trial

from autopilot import plugins
from autopilot.errors import AutopilotError, BadInput, BaselineFailed, Failure, VariantFailed
from autopilot.model import inspect
from autopilot.observer import Observer
from autopilot.outputs import check_writable, write_result
from autopilot.recipe import Variant
from autopilot.result import Status, StudyResult, TrialRecord
from autopilot.search import energy
from autopilot.search.book import Book
from autopilot.search.conclude import conclude
from autopilot.search.evaluator import Evaluator
from autopilot.search.finalists import Ranking
from autopilot.search.outcome import RETRIED, Outcome
from autopilot.search.prepare import Setup, identity, prepare, resolve_model
from autopilot.search.reporting import try_report
from autopilot.search.sampler import Sampler
from autopilot.search.samples import FOLDER as SAMPLES
from autopilot.search.samples import WORK, save_samples
from autopilot.search.state import FolderLock, RunState
from autopilot.search.texts import against_budget, baseline_text, best_text, control_text, deployment_text, recipe_text
from autopilot.spec import Problem
from autopilot.tracking import Tracker

# A sampler that keeps repeating itself is helped out with a random variant after this many.
REPEATS = 2
# Queued known-good variants take at most this share of the trials.
KNOWN_GOOD_SHARE = 0.5


def run_study(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
    """Search, verify, log: the main job.

    Raises:
        BadInput: spec, model or data are wrong; nothing is left behind in ``out``.
        BaselineFailed: the model as given can't be measured.
        KeyboardInterrupt: passed on; the same call goes on from there.
    """
    check_writable(out)
    work = (out / WORK).absolute()
    made = [folder for folder in (work, *work.parents) if not folder.exists()]
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FolderLock(work):
            return _run_locked(problem, out, fresh=fresh, observer=observer)
    except (BadInput, BaselineFailed):
        if made and not (work / SAMPLES).exists():  # with trials in it, it is worth keeping
            shutil.rmtree(made[-1], ignore_errors=True)
        raise


def _run_locked(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
    begun = time.monotonic()
    work = (out / WORK).absolute()
    now = identity(problem, inspect(resolve_model(problem, work)).files)
    found = None if fresh else _interrupted(work, now, observer)
    setup = prepare(problem, work, observer)
    state = found or RunState(now)
    if found is None:
        _clear(work)
    state.save(work)
    with Evaluator(setup, observer) as evaluator:
        study = _Study(setup, evaluator, observer, state, begun)
        try:
            study.begin()
            study.search()
            result = conclude(
                evaluator, study.book.records, study.ranking, deadline=study.deadline, started=study.started, out=out
            )
            study.save_state()
            return study.log(result, out)
        except BaseException:  # an interrupt too: what a resume needs is kept whatever ended the run
            study.stopped()
            raise


def _interrupted(work: Path, now: Mapping[str, str], observer: Observer) -> RunState | None:
    """The state to go on from, where an interrupted run of the same question lies in ``work``."""
    found = RunState.load(work)
    if found is None or found.finished:
        return None
    changed = found.changed(dict(now))
    if changed:
        observer.note(f"the interrupted run in this folder is not continued: {', '.join(changed)} changed")
        return None
    observer.note("going on with the interrupted run in this folder (--fresh starts anew)")
    return found


def _clear(work: Path) -> None:
    """Remove an earlier run's trials, once the new question is known to be a good one."""
    (work / "state.json").unlink(missing_ok=True)  # first: cut off half-way, nothing may look like a run to go on with
    for item in work.iterdir():
        if item.name not in ("lock", "model", "data"):
            shutil.rmtree(item) if item.is_dir() else item.unlink()


class _Study:
    """The running search: its clock, its sampler, its book."""

    def __init__(self, setup: Setup, evaluator: Evaluator, observer: Observer, state: RunState, begun: float) -> None:
        self.setup = setup
        self.evaluator = evaluator
        self.observer = observer
        self.started = begun - state.elapsed_s
        self.deadline = self.started + setup.problem.search.timeout_s
        self.ranking = Ranking(setup.problem.objective, maximize=_maximize(setup))
        self._sampler = Sampler(
            setup.work,
            setup.problem.name,
            maximize=self.ranking.maximize,
            seed=setup.problem.search.seed,
            limits=setup.problem.budget.axes,
        )
        self.book = Book(self._sampler, self.ranking, setup.work)
        self._tracker: Tracker | None = None
        self._state = state
        self._reserve_s = 0.0
        self._repeats = 0
        self._exhausted = False

    # ---- start ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Recover finished trials, measure the baseline, queue what is known to be good."""
        self.book.recover()
        self.observer.phase("measuring the model as given")
        baseline = self.evaluator.measure_baseline()
        # Only now: a model or a metric that turns out to be unusable leaves nothing in MLflow.
        self._open_tracker()
        self._reserve_s = self._verification_s(baseline)
        self.observer.note(
            baseline_text(baseline.measured, self.setup.metric.name, self.ranking, self.setup.problem.budget)
        )
        space = self.setup.space
        if self.book.records:  # measured anew: ratios from here on are to these figures, not to trial 0's
            self.evaluator.baseline_samples = f"baseline-{len(self.book.records)}"
            save_samples(self.setup.work, self.evaluator.baseline_samples, baseline, self.evaluator.verdict(baseline))
        else:
            self._sampler.enqueue(space, baseline.variant, once=False)
            trial, variant = self._sampler.ask(space)
            if variant != baseline.variant:
                raise AutopilotError("the first trial is not the baseline.", "This is a bug; please report it.")
            self.book.measured(trial, baseline, self.evaluator.verdict(baseline))
        if self.evaluator.control is not None:
            self.observer.note(control_text(self.evaluator.control))
        # On resume too: a kill may have come before all were queued, and none is queued twice.
        known = [v for v in space.known_good(self.setup.target) if space.refusal(v.recipe) is None]
        for good in known[: max(4, int(self.setup.problem.search.trials * KNOWN_GOOD_SHARE))]:
            self._sampler.enqueue(space, good)

    def _verification_s(self, baseline: Outcome) -> float:
        """Time to keep free at the end: baseline and two finalists on the held-back data, latency twice."""
        splits = self.setup.splits
        share = splits.test.n / max(1, splits.validation.n)
        profile_s = baseline.seconds["profile"] - baseline.seconds.get("control", 0.0)
        expected = 3 * baseline.seconds["evaluate"] * share + 4 * profile_s + 5.0
        expected += 2 * energy.expected_s(self.setup.target)
        return min(expected, 0.4 * self.setup.problem.search.timeout_s)

    def _open_tracker(self) -> None:
        problem = self.setup.problem
        try:
            self._tracker = Tracker.start(
                problem.name,
                spec_text=problem.path.read_text(encoding="utf-8"),
                budget=problem.budget,
                environment=self.setup.target.to_json(),
                run_id=self._state.mlflow_run,
            )
        except AutopilotError as exc:
            self.observer.note(f"not logged to MLflow: {exc}")
            return
        self.book.log = self._log_trial
        self.save_state()

    def _log_trial(self, record: TrialRecord) -> None:
        """MLflow's trouble must not cost a trial: it is in the study's own database already."""
        assert self._tracker is not None
        try:
            self._tracker.log_trial(record)
        except AutopilotError as exc:
            self.observer.note(f"trial {record.number} is not logged to MLflow: {exc}")

    def save_state(self) -> None:
        """Keep what a resume needs."""
        run = self._tracker.run_id if self._tracker else self._state.mlflow_run
        self._state = replace(self._state, mlflow_run=run, elapsed_s=time.monotonic() - self.started)
        self._state.save(self.setup.work)

    def stopped(self) -> None:
        """The run ends before its result: keep what a resume needs, and tell MLflow that it was stopped."""
        self.save_state()
        if self._tracker is not None:
            with contextlib.suppress(AutopilotError):
                self._tracker.__exit__(None, None, None)

    # ---- the loop ------------------------------------------------------------------------------

    def search(self) -> None:
        """Trials until their number, the time or the space is used up."""
        total = self.setup.problem.search.trials
        self.evaluator.deadline = self.deadline - self._reserve_s
        while len(self.book.records) < total and not self._exhausted:
            left = self._left_s
            if left <= 0:
                self.observer.note(f"time is up after {len(self.book.records)} of {total} trials")
                return
            trial, variant = self._sampler.ask(self.setup.space)
            if not self._is_new(variant):
                self._pass_over(trial, variant)
                continue
            number = len(self.book.records)
            usual = self.setup.space.default_deployment(variant.deployment.provider)
            deployment = deployment_text(variant.deployment, usual)
            recipe = recipe_text(variant.recipe, self.setup.space)
            self.observer.trial_started(number, total, left, recipe, deployment)
            self._one(trial, variant)
            if len(self.book.records) == number:
                continue
            record, budget = self.book.records[-1], self.setup.problem.budget
            best = best_text(self.book.records, self.ranking, budget, self.setup.space)
            self.observer.trial_finished(record, best, against_budget(record, budget))
            self.save_state()
            if self.book.is_unstable:
                self.observer.note(f"the machine is too unstable to measure on: {record.reason} The search ends here")
                return

    @property
    def _left_s(self) -> float:
        return self.deadline - self._reserve_s - time.monotonic()

    def _is_new(self, variant: Variant) -> bool:
        """Whether a trial of ``variant`` could tell anything that isn't known."""
        if self.book.same_variant(variant) is not None or self.book.dead_end(variant.recipe) is not None:
            return False
        return self.setup.space.refusal(variant.recipe) is None

    def _pass_over(self, trial: Trial, variant: Variant) -> None:
        """Nothing is run; after a few such draws in a row a random new variant is queued."""
        self.book.skipped(trial, self.book.same_variant(variant))
        self._repeats += 1
        if self._repeats >= REPEATS and not self._sampler.enqueue_unseen(self.setup.space, self._is_new):
            self._exhausted = True
            self.observer.note("every variant of this space was tried")

    def _one(self, trial: Trial, variant: Variant) -> None:
        """One trial and its record; without one where the study's time ended it, which tells nothing about it."""
        self._repeats = 0
        for attempt in (1, 2):
            seconds: dict[str, float] = {}
            artifact = None
            try:
                artifact = self.evaluator.build(variant.recipe, seconds)
                twin = self.book.same_artifact(artifact, variant)
                if twin is not None:
                    self.book.duplicate(trial, variant, twin)
                    return
                outcome = self.evaluator.measure(variant, artifact, give_up=self.book.hopeless)
            except VariantFailed as exc:
                if exc.failure is Failure.TIMEOUT and self._left_s <= 0:
                    self._sampler.abandon(trial)
                    return
                if attempt == 1 and exc.failure in RETRIED:
                    self.observer.note(f"{exc.failure.value}: {exc.message} Trying once more.")
                    continue
                self.book.failed(trial, variant, exc, seconds, was_built=artifact is not None)
                return
            outcome.seconds = seconds | outcome.seconds
            self.book.measured(trial, outcome, self.evaluator.verdict(outcome))
            return

    # ---- end -----------------------------------------------------------------------------------

    def log(self, result: StudyResult, out: Path) -> StudyResult:
        """MLflow last: its trouble must not cost the result, which is on disk already."""
        self._report(result, out)
        if self._tracker is not None:
            self.observer.phase("logging to MLflow")
            try:
                folder = out / "best" if result.status is Status.IN_BUDGET else None
                reference = self._tracker.finish(result, out, folder)
                result = replace(result, mlflow=reference)
                write_result(result, out)
                self._report(result, out)  # again: with where MLflow has it
            except AutopilotError as exc:
                self.observer.note(f"not logged to MLflow: {exc}")
        replace(self._state, finished=True).save(self.setup.work)
        self.observer.finished()
        return result

    def _report(self, result: StudyResult, out: Path) -> None:
        trouble = try_report(result, out)
        if trouble is not None:
            self.observer.note(trouble)


def _maximize(setup: Setup) -> bool:
    """Whether more of the objective is better; of ``quality`` the metric decides."""
    if setup.problem.objective == "quality":
        return setup.metric.higher_is_better
    found = plugins.find_axis(setup.problem.objective)
    return found is not None and found[1].higher_is_better
