"""The loop: ask, build, profile, judge, log, tell; then verify the finalists."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import replace
from pathlib import Path

from optuna.trial import Trial

from autopilot import plugins
from autopilot.errors import AutopilotError, BadInput, BaselineFailed, Failure, ModelError, VariantFailed
from autopilot.model import inspect
from autopilot.observer import Observer
from autopilot.outputs import check_writable, write_result
from autopilot.recipe import Variant
from autopilot.result import Status, StudyResult, TrialRecord, recipe_text
from autopilot.search.book import Book
from autopilot.search.conclude import conclude
from autopilot.search.evaluator import Evaluator
from autopilot.search.finalists import Ranking, line_up
from autopilot.search.outcome import Outcome
from autopilot.search.prepare import Setup, identity, prepare, resolve_model
from autopilot.search.sampler import Sampler
from autopilot.search.state import FolderLock, RunState
from autopilot.spec import Problem
from autopilot.tracking import Tracker

# One more attempt for endings that may be bad luck.
RETRIED = (Failure.CRASH, Failure.TIMEOUT)
# A sampler that keeps repeating itself is helped out with a random variant after this many.
REPEATS = 2
# Queued known-good variants take at most this share of the trials.
KNOWN_GOOD_SHARE = 0.5
WORK = ".autopilot"


def run_study(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
    """Search, verify, log: the main job.

    Raises:
        BadInput: spec, model or data are wrong; nothing is left behind in ``out``.
        BaselineFailed: the model as given can't be measured.
        KeyboardInterrupt: passed on; the same call goes on from there.
    """
    check_writable(out)
    existed = out.exists()
    work = (out / WORK).absolute()
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FolderLock(work):
            return _run_locked(problem, out, fresh=fresh, observer=observer)
    except BadInput:
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _run_locked(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
    begun = time.monotonic()
    work = (out / WORK).absolute()
    state = _open_state(problem, work, fresh=fresh, observer=observer)
    setup = prepare(problem, work, observer)
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
        except BaseException:
            study.stopped()
            raise


def _open_state(problem: Problem, work: Path, *, fresh: bool, observer: Observer) -> RunState:
    """The state to go on from: an interrupted run of the same question, or a new one."""
    now = identity(problem, inspect(resolve_model(problem, work)).files)
    found = None if fresh else RunState.load(work)
    if found is not None and not found.finished:
        changed = found.changed(now)
        if not changed:
            observer.note("going on with the interrupted run in this folder (--fresh starts anew)")
            return found
        observer.note(f"the interrupted run in this folder is not continued: {', '.join(changed)} changed")
    for item in work.iterdir():
        if item.name not in ("lock", "model"):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    return RunState(now)


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
        self._open_tracker()
        self.observer.phase("measuring the model as given")
        try:
            baseline = self.evaluator.measure_baseline()
        except VariantFailed as exc:
            raise _baseline_error(exc, self.setup) from exc
        self._reserve_s = self._verification_s(baseline)
        if self.book.records:
            return
        space = self.setup.space
        self._sampler.enqueue(space, baseline.variant)
        trial, variant = self._sampler.ask(space)
        if variant != baseline.variant:
            raise AutopilotError("the first trial is not the baseline.", "This is a bug; please report it.")
        self.book.measured(trial, baseline, self.evaluator.verdict(baseline))
        known = [v for v in space.known_good(self.setup.target) if space.refusal(v.recipe) is None]
        for good in known[: max(4, int(self.setup.problem.search.trials * KNOWN_GOOD_SHARE))]:
            self._sampler.enqueue(space, good)

    def _verification_s(self, baseline: Outcome) -> float:
        """Time to keep free at the end: baseline and two finalists on the held-back data, latency twice."""
        splits = self.setup.splits
        share = splits.test.n / max(1, splits.validation.n)
        expected = 3 * baseline.seconds["evaluate"] * share + 4 * baseline.seconds["profile"] + 5.0
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
        while len(self.book.records) < total and not self._exhausted:
            left = self.deadline - self._reserve_s - time.monotonic()
            if left <= 0:
                self.observer.note(f"time is up after {len(self.book.records)} of {total} trials")
                return
            trial, variant = self._sampler.ask(self.setup.space)
            if not self._is_new(variant):
                self._pass_over(trial, variant)
                continue
            # A child may overrun the study's time a little, not for minutes.
            wall_s = min(self.setup.problem.search.step_timeout_s, max(30.0, left))
            self.evaluator.limits = replace(self.setup.limits, wall_s=wall_s)
            number = len(self.book.records)
            self.observer.trial_started(number, total, left, recipe_text(variant.recipe), self._deployment(variant))
            self._one(trial, variant)
            record = self.book.records[-1]
            self.observer.trial_finished(record, self._best_text(), _against_budget(record))
            self.save_state()

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
        self._repeats = 0
        for attempt in (1, 2):
            seconds: dict[str, float] = {}
            try:
                artifact = self.evaluator.build(variant.recipe, seconds)
                twin = self.book.same_artifact(artifact, variant)
                if twin is not None:
                    self.book.duplicate(trial, variant, twin)
                    return
                outcome = self.evaluator.measure(variant, artifact, give_up=self.book.hopeless)
            except VariantFailed as exc:
                if attempt == 1 and exc.failure in RETRIED:
                    self.observer.note(f"{exc.failure.value}: {exc.message} Trying once more.")
                    continue
                self.book.failed(trial, variant, exc, seconds)
                return
            outcome.seconds = seconds | outcome.seconds
            self.book.measured(trial, outcome, self.evaluator.verdict(outcome))
            return

    def _deployment(self, variant: Variant) -> str:
        """Provider, threads, batch, and the options that aren't the default deployment's."""
        d = variant.deployment
        usual = dict(self.setup.space.default_deployment(d.provider).options)
        said = [f"{k}={v}" for k, v in d.options if usual.get(k) != v]
        return " ".join([d.provider, f"threads={d.threads}", f"batch={d.batch}", *said])

    def _best_text(self) -> str | None:
        queue = line_up(self.book.records, self.ranking)
        measured = queue[0].measured.get(self.ranking.axis) if queue else None
        if measured is None or measured.value is None:
            return None
        verdict = queue[0].verdict
        word = "" if verdict is not None and verdict.overall.value == "in" else " (undecided)"
        ratio = f", {measured.ratio.value * 100:.0f}% of baseline" if measured.ratio else ""
        return f"{self.ranking.axis} {measured.value:.4g}{ratio}{word} · {recipe_text(queue[0].variant.recipe)}"

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


def _against_budget(record: TrialRecord) -> str:
    """Every limit's judgement in one line, or how the trial failed."""
    if record.verdict is None:
        return record.failure.value if record.failure else record.state.value
    return ", ".join(f"{axis} {judgement.value}" for axis, judgement in record.verdict.per_limit.items())


def _baseline_error(exc: VariantFailed, setup: Setup) -> AutopilotError:
    """The model as given doesn't run: bad input where the runtime refuses it, else our failure."""
    log = f"\n{exc.log}" if exc.log else ""
    message = f"{setup.info.path}: the model as given can't be measured ({exc.failure.value}): {exc.message}{log}"
    if exc.failure in (Failure.UNSUPPORTED, Failure.WRONG_NUMERICS, Failure.BUILD_ERROR):
        return ModelError(message, exc.hint)
    return BaselineFailed(message, exc.hint or "Run it once with onnxruntime alone to see whether it works there.")
