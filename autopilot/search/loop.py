"""The loop: ask, build, profile, judge, log, tell."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from pathlib import Path

from optuna.trial import Trial

from autopilot import plugins
from autopilot.errors import AutopilotError, Failure, VariantFailed
from autopilot.observer import Observer
from autopilot.outputs import write_result
from autopilot.recipe import Variant
from autopilot.result import Status, StudyResult, TrialRecord
from autopilot.search import energy
from autopilot.search.book import Book
from autopilot.search.evaluator import Evaluator
from autopilot.search.finalists import Ranking
from autopilot.search.ledger import Ledger
from autopilot.search.outcome import RETRIED, Outcome
from autopilot.search.prepare import Setup
from autopilot.search.sampler import Sampler
from autopilot.search.samples import save_samples
from autopilot.search.state import RunState
from autopilot.search.storage import logged_spec
from autopilot.search.texts import against_budget, baseline_text, best_text, control_text, deployment_text, recipe_text
from autopilot.tracking import Tracker

# A sampler that keeps repeating itself is helped out with a random variant after this many.
REPEATS = 2
# Queued known-good variants take at most this share of the trials.
KNOWN_GOOD_SHARE = 0.5


class RunningStudy:
    """The running search: its clock, its sampler, its book. ``begun``: when this run did, on the monotonic clock."""

    def __init__(
        self, setup: Setup, evaluator: Evaluator, observer: Observer, *, ledger: Ledger, state: RunState, begun: float
    ) -> None:
        self.setup = setup
        self.evaluator = evaluator
        self.observer = observer
        self.started = begun - state.elapsed_s
        self.deadline = self.started + setup.problem.search.timeout_s
        self.ranking = Ranking(setup.problem.objective, maximize=_maximize(setup))
        # A run that goes on, or joins others, must not repeat their draws: the seed moves on.
        seed = setup.problem.search.seed + ledger.finished + (os.getpid() if ledger.is_shared else 0)
        self._sampler = Sampler(maximize=self.ranking.maximize, seed=seed % 2**32, limits=setup.problem.budget.axes)
        self.book = Book(self._sampler, ledger, self.ranking, work=setup.work, space=setup.space)
        self.book.note = observer.note
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
        if not self.book.first(baseline, self.evaluator.verdict(baseline)):
            # Trial 0 was measured earlier or elsewhere: ratios from here on are to these figures, not to its.
            self.evaluator.baseline_samples = f"baseline-{len(self.book.records)}"
            save_samples(self.setup.work, self.evaluator.baseline_samples, baseline, self.evaluator.verdict(baseline))
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
                spec_text=logged_spec(problem),
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

    def stopped(self, *, by_user: bool) -> None:
        """The run ends before its result: keep what a resume needs, and tell MLflow that it was stopped."""
        self.save_state()
        with contextlib.suppress(AutopilotError):
            self.book.stopped(by_user=by_user)
        if self._tracker is not None:
            with contextlib.suppress(AutopilotError):
                self._tracker.__exit__(None, None, None)

    # ---- the loop ------------------------------------------------------------------------------

    def search(self) -> None:
        """Trials until their number, the time or the space is used up."""
        total = self.setup.problem.search.trials
        self.evaluator.deadline = self.deadline - self._reserve_s
        while self._is_open(total):
            left = self._left_s
            if left <= 0:
                self.observer.note(f"time is up after {len(self.book.records)} of {total} trials")
                return
            trial, variant = self._sampler.ask(self.setup.space)
            if not self._is_new(variant):
                self._pass_over(trial, variant)
                continue
            if not self.book.claim(variant, total):
                self._sampler.abandon(trial)  # another run was faster
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

    def _is_open(self, total: int) -> bool:
        """Whether there is something left to try, once the last trials of other runs have ended."""
        while True:
            if self.book.sync():
                self._exhausted = False
            waits = len(self.book.records) < total and self._left_s > 0
            if not waits or not self.book.wait(None if self._exhausted else total):
                break
        return len(self.book.records) < total and not self._exhausted

    @property
    def _left_s(self) -> float:
        return self.deadline - self._reserve_s - time.monotonic()

    def _is_new(self, variant: Variant) -> bool:
        """Whether a trial of ``variant`` could tell anything that isn't known."""
        if self.book.same_variant(variant) is not None or self.book.dead_end(variant.recipe) is not None:
            return False
        if self.book.is_barred(variant):
            return False
        return self.setup.space.refusal(variant.recipe) is None

    def _pass_over(self, trial: Trial, variant: Variant) -> None:
        """Nothing is run; after a few such draws in a row a random new variant is queued."""
        if self.book.is_barred(variant):
            self._sampler.abandon(trial)
        else:
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
                    self.book.abandoned(trial)
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
        if self._tracker is not None:
            self.observer.phase("logging to MLflow")
            try:
                folder = out / "best" if result.status is Status.IN_BUDGET else None
                reference = self._tracker.finish(result, out, folder)
                result = replace(result, mlflow=reference)
                write_result(result, out)
            except AutopilotError as exc:
                self.observer.note(f"not logged to MLflow: {exc}")
        replace(self._state, finished=True).save(self.setup.work)
        self.observer.finished()
        return result


def _maximize(setup: Setup) -> bool:
    """Whether more of the objective is better; of ``quality`` the metric decides."""
    if setup.problem.objective == "quality":
        return setup.metric.higher_is_better
    found = plugins.find_axis(setup.problem.objective)
    return found is not None and found[1].higher_is_better
