"""The loop: ask, build, profile, judge, log, tell."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from autopilot import plugins
from autopilot.errors import AutopilotError
from autopilot.observer import Observer
from autopilot.outputs import write_logged
from autopilot.recipe import Variant
from autopilot.result import BaselineChoice, MlflowRef, Status, StudyResult, TrialRecord
from autopilot.search.book import Book
from autopilot.search.candidates import SpaceCandidates
from autopilot.search.contest import contest
from autopilot.search.evaluator import Evaluator
from autopilot.search.foreseen import foreseen
from autopilot.search.guided import choices_of
from autopilot.search.hunt import Hunt, Watch
from autopilot.search.ledger import Ledger
from autopilot.search.outcome import Outcome
from autopilot.search.prepare import Setup
from autopilot.search.proposer import Proposer, known_for
from autopilot.search.ranking import Ranking
from autopilot.search.reporting import try_report
from autopilot.search.reserve import FIRST_SHARE, KEPT_SHARE, reserve_s
from autopilot.search.rivals import follow, rival_name, settle_baseline
from autopilot.search.sampler import Sampler
from autopilot.search.samples import baseline_again_name, save_samples
from autopilot.search.shapes import first_runs
from autopilot.search.state import RunState
from autopilot.search.storage import logged_spec
from autopilot.search.texts import (
    against_budget,
    baseline_text,
    best_text,
    control_text,
    deployment_text,
    recipe_text,
    variant_text,
)
from autopilot.tracking import Goal, Ruling, Tracker


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
        self.ranking = _ranking(setup)
        # A run that goes on, or joins others, must not repeat their draws: the seed moves on.
        seed = setup.problem.search.seed + ledger.finished + (os.getpid() if ledger.is_shared else 0)
        self._sampler = Sampler(
            maximize=[goal.maximize for goal in self.ranking.goals],
            seed=seed % 2**32,
            limits=setup.problem.budget.axes,
        )
        self.book = Book(self._sampler, ledger, self.ranking, work=setup.work, space=setup.space)
        self.book.note = observer.note
        self._tracker: Tracker | None = None
        self._state = state
        self.ended = ""  # why the search ended
        self.cut_off_s = 0.0  # what the trial took that its end cut off

    # ---- start ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Recover finished trials, measure the baseline."""
        self.book.recover()
        self.observer.phase("measuring the model as given")
        self.evaluator.measure_baseline()
        self._tell_figures(self.evaluator.reference)
        settle_baseline(self.evaluator, self.book.records[0].variant if self.book.records else None)
        # Only now: a model or a metric that turns out to be unusable leaves nothing in MLflow.
        self._open_tracker()
        baseline = self.evaluator.baseline
        if not self.book.first(baseline, self.evaluator.verdict(baseline)):
            follow(self.evaluator, self.book.records[0].variant)  # another run may have been faster to choose
            baseline = self.evaluator.baseline
            # Trial 0 was measured earlier or elsewhere: ratios from here on are to these figures, not to its.
            self.evaluator.baseline_samples = baseline_again_name(self.setup.work, len(self.book.records))
            save_samples(self.setup.work, self.evaluator.baseline_samples, baseline, self.evaluator.verdict(baseline))
        if baseline is not self.evaluator.reference:
            self._tell_figures(baseline)
            # The model as given is a variant like every other then, and one to know about, where the space has it.
            if choices_of(self.setup.space, self.evaluator.reference.variant) is not None:
                self._sampler.enqueue(self.setup.space, self.evaluator.reference.variant)
        if self.evaluator.control is not None:
            self.observer.note(control_text(self.evaluator.control))
        for text in foreseen(self.evaluator):
            self.observer.note(text)

    def _tell_figures(self, baseline: Outcome) -> None:
        """One line on the baseline."""
        name = BaselineChoice(rival_name(self.setup, baseline.variant)).text
        metric, budget = self.setup.metric.name, self.setup.problem.budget
        self.observer.note(baseline_text(baseline.measured, metric, self.ranking, budget, name))

    def _open_tracker(self) -> None:
        problem = self.setup.problem
        try:
            self._tracker = Tracker.start(
                problem.name,
                spec_text=logged_spec(problem),
                budget=problem.budget,
                environment=self.setup.target.to_json(),
                goals=[Goal(goal.axis, goal.maximize) for goal in self.ranking.goals],
                run_id=self._state.mlflow_run,
                naming=lambda variant: variant_text(variant, self.setup.space),
            )
            self._tracker.remember(self.book.records)
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
        """Trials until their number, the time or what is worth trying is used up."""
        setup = self.setup
        candidates = SpaceCandidates(setup.space, setup.target, self.ranking, seed=setup.problem.search.seed)
        expected_s = self.evaluator.expected_s()
        hunt = Hunt(
            setup.space,
            self._sampler,
            self.book,
            self.evaluator,
            trials=setup.problem.search.trials,
            deadline=self.deadline,
            proposer=Proposer(
                candidates,
                self.ranking,
                setup.problem.budget.axes,
                known=known_for(len(setup.space.providers)),
                expected_s=expected_s,
                first_runs=partial(first_runs, setup),
            ),
        )
        hunt.absent.answered(self.evaluator.baseline.variant)
        hunt.watch = _Watch(self, hunt)
        self.keep_time(hunt)
        timeout_s = setup.problem.search.timeout_s
        if hunt.kept_s > KEPT_SHARE * timeout_s:
            takes = f"{hunt.kept_s:.0f} s"
            takes = f"some {takes}" if hunt.kept_s < FIRST_SHARE * timeout_s else f"{takes} or more"
            said = f"measuring a finalist again should take {takes}, most of the study's time"
            self.observer.note(f"{said}: give it more (search.timeout)")
        self.ended = hunt.run()
        self.cut_off_s = hunt.cut_off[1] if hunt.cut_off is not None else 0.0
        space = setup.space
        # What turned out not to run here, for the result.
        space = replace(space, not_tried=(*space.not_tried, *hunt.absent.not_tried))
        self.setup = self.evaluator.setup = replace(setup, space=space)

    def keep_time(self, hunt: Hunt) -> None:
        """End ``hunt`` so that the finalists can be measured again in time, by what trials took so far."""
        hunt.kept_s = reserve_s(self.setup, self.book.records, self.ranking, self.evaluator.baseline)
        hunt.deadline = self.evaluator.allowance.deadline = self.deadline - hunt.kept_s

    # ---- end -----------------------------------------------------------------------------------

    def log(self, result: StudyResult, out: Path) -> StudyResult:
        """MLflow last: its trouble must not cost the result, which is on disk already."""
        self._report(result, out)
        if self._tracker is not None:
            try:
                reference = self._finish_tracking(self._tracker, result, out)
                result = replace(result, mlflow=reference)
                write_logged(result, out)
                self._report(result, out)  # again: with where MLflow has it
            except AutopilotError as exc:
                self.observer.note(f"not logged to MLflow: {exc}")
        replace(self._state, finished=True).save(self.setup.work)
        self.observer.finished()
        return result

    def _finish_tracking(self, tracker: Tracker, result: StudyResult, out: Path) -> MlflowRef:
        """The result in MLflow; a winner as a registered version, and champion where it beats the one before."""
        if result.status is not Status.IN_BUDGET:
            self.observer.phase("logging to MLflow")
            return tracker.finish(result, out)
        ruling: Ruling = contest(self.evaluator, result, self.ranking, tracker, out)
        self.observer.phase("logging to MLflow")
        split = self.setup.splits.validation
        example = split.feed(range(min(self.setup.fixed_batch or 1, split.n)))
        reference = tracker.finish(result, out, out / "best", ruling=ruling, example=example)
        said = "is now champion" if ruling.crown else "is registered, the champion stays"
        self.observer.note(f"{reference.model} version {reference.version} {said}: {ruling.reason}")
        return reference

    def _report(self, result: StudyResult, out: Path) -> None:
        trouble = try_report(result, out)
        if trouble is not None:
            self.observer.note(trouble)


class _Watch(Watch):
    """Shows trials as they go; keeps the study's state, and time for the end, after each."""

    def __init__(self, study: RunningStudy, hunt: Hunt) -> None:
        self._study = study
        self._hunt = hunt

    def started(self, number: int, left_s: float, variant: Variant) -> None:
        setup = self._study.setup
        usual = setup.space.default_deployment(variant.deployment.provider)
        deployment = deployment_text(variant.deployment, usual)
        recipe = recipe_text(variant.recipe, setup.space)
        self._study.observer.trial_started(number, setup.problem.search.trials, left_s, recipe, deployment)

    def finished(self, record: TrialRecord) -> None:
        study, budget = self._study, self._study.setup.problem.budget
        best = best_text(study.book.records, study.ranking, budget, study.setup.space)
        study.observer.trial_finished(record, best, against_budget(record, budget))
        study.keep_time(self._hunt)
        study.save_state()

    def note(self, text: str) -> None:
        self._study.observer.note(text)


def _ranking(setup: Setup) -> Ranking:
    first, *further = (Ranking(axis, maximize=_maximize(setup, axis)) for axis in setup.problem.objectives)
    return replace(first, further=tuple(further))


def _maximize(setup: Setup, axis: str) -> bool:
    """Whether more of an objective is better; of ``quality`` the metric decides."""
    if axis == "quality":
        return setup.metric.higher_is_better
    found = plugins.find_axis(axis)
    return found is not None and found[1].higher_is_better
