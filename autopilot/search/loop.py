"""The loop: ask, build, profile, judge, log, tell; then verify the finalists."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import Trial

from autopilot.budget import Verdict
from autopilot.errors import AutopilotError, BadInput, BaselineFailed, Failure, ModelError, VariantFailed
from autopilot.observer import Observer
from autopilot.recipe import Variant
from autopilot.result import StudyResult, TrialRecord
from autopilot.search.conclude import conclude
from autopilot.search.evaluator import Evaluator, Outcome
from autopilot.search.finalists import Ranking
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


def run_study(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
    """Search, verify, log: the main job.

    Raises:
        BadInput: spec, model or data are wrong; nothing is left behind in ``out``.
        BaselineFailed: the model as given can't be measured.
        KeyboardInterrupt: passed on; the same call goes on from there.
    """
    from autopilot.outputs import check_writable

    check_writable(out)
    existed = out.exists()
    work = out / ".autopilot"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FolderLock(work):
            return _run_locked(problem, out, fresh=fresh, observer=observer)
    except BadInput:
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _run_locked(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
    started = time.monotonic()
    work = out / ".autopilot"
    state = _open_state(problem, work, fresh=fresh, observer=observer)
    setup = prepare(problem, work, observer)
    state.save(work)
    with Evaluator(setup, observer) as evaluator:
        study = _Study(setup, evaluator, observer, started - state.elapsed_s)
        try:
            study.begin(state)
            study.search()
            result = conclude(
                evaluator, study.records, study.ranking, deadline=study.deadline, started=study.started, out=out
            )
        finally:
            study.save_state(work)
    return study.log(result, out)


def _open_state(problem: Problem, work: Path, *, fresh: bool, observer: Observer) -> RunState:
    """The state to go on from: an interrupted run of the same question, or a new one."""
    now = identity(problem, resolve_model(problem, work))
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


@dataclass(slots=True)
class _Progress:
    """What repeats or survives over trials."""

    repeats: int = 0
    exhausted: bool = False


class _Study:
    """The running search: its records, its clock, its sampler."""

    def __init__(self, setup: Setup, evaluator: Evaluator, observer: Observer, started: float) -> None:
        self.setup = setup
        self.evaluator = evaluator
        self.observer = observer
        self.started = started
        self.deadline = started + setup.problem.search.timeout_s
        self.records: list[TrialRecord] = []
        self._by_variant: dict[str, TrialRecord] = {}
        self._by_artifact: dict[tuple[str, str], TrialRecord] = {}
        self._progress = _Progress()
        self._reserve_s = 0.0
        axis = setup.problem.objective
        found = evaluator_axis(axis)
        self.ranking = Ranking(axis, maximize=found)
        self._sampler = Sampler(
            setup.work,
            setup.problem.name,
            maximize=self.ranking.maximize,
            seed=setup.problem.search.seed,
            limits=setup.problem.budget.axes,
        )
        self._tracker: Tracker | None = None
        self._state: RunState | None = None

    # ---- start ---------------------------------------------------------------------------------

    def begin(self, state: RunState) -> None:
        """Recover finished trials, measure the baseline, queue what is known to be good."""
        self._state = state
        for raw in self._sampler.recover():
            self._remember(TrialRecord.from_json(raw))
        self._tracker = self._open_tracker(state)
        self.observer.phase("measuring the model as given")
        try:
            baseline = self.evaluator.measure_baseline()
        except VariantFailed as exc:
            raise _baseline_error(exc, self.setup) from exc
        seconds = baseline.seconds
        share = self.setup.splits.test.n / max(1, self.setup.splits.validation.n)
        # Baseline and two finalists on the held-back data, and two latency passes.
        expected = 3 * seconds.get("evaluate", 0.0) * share + 4 * seconds.get("profile", 0.0) + 5.0
        self._reserve_s = min(expected, 0.4 * self.setup.problem.search.timeout_s)
        if self.records:
            return
        space = self.setup.space
        self._sampler.enqueue(space, baseline.variant)
        trial, variant = self._sampler.ask(space)
        if variant != baseline.variant:
            raise AutopilotError("the first trial is not the baseline.", "This is a bug; please report it with the spec.")
        self._record_measured(trial, baseline)
        known = list(space.known_good(self.setup.target))
        for good in known[: max(4, int(self.setup.problem.search.trials * KNOWN_GOOD_SHARE))]:
            if space.refusal(good.recipe) is None:
                self._sampler.enqueue(space, good)

    def _open_tracker(self, state: RunState) -> Tracker | None:
        problem = self.setup.problem
        try:
            return Tracker.start(
                problem.name,
                spec_text=problem.path.read_text(encoding="utf-8"),
                budget=problem.budget,
                environment=self.setup.target.to_json(),
                run_id=state.mlflow_run,
            )
        except AutopilotError as exc:
            self.observer.note(f"not logged to MLflow: {exc}")
            return None

    def save_state(self, work: Path) -> None:
        """Keep what a resume needs, whatever ended this run."""
        if self._state is not None:
            run = self._tracker.run_id if self._tracker else self._state.mlflow_run
            elapsed = time.monotonic() - self.started
            self._state = replace(self._state, mlflow_run=run, elapsed_s=elapsed)
            self._state.save(work)

    # ---- the loop ------------------------------------------------------------------------------

    def search(self) -> None:
        """Trials until their number, the time or the space is used up."""
        total = self.setup.problem.search.trials
        while len(self.records) < total and not self._progress.exhausted:
            left = self.deadline - self._reserve_s - time.monotonic()
            if left <= 0:
                self.observer.note(f"time is up after {len(self.records)} of {total} trials")
                return
            trial, variant = self._sampler.ask(self.setup.space)
            self._limit_children(left)
            recipe, deployment = recipe_text(variant), deployment_text(variant)
            self.observer.trial_started(len(self.records), total, left, recipe, deployment)
            self._one(trial, variant)
            self.observer.trial_finished(self.records[-1], self._best_text(), self._against_budget(self.records[-1]))

    def _limit_children(self, left: float) -> None:
        """A child may overrun the study's time a little, not for minutes."""
        step = self.setup.problem.search.step_timeout_s
        self.evaluator.limits = replace(self.setup.limits, wall_s=min(step, max(30.0, left)))

    def _one(self, trial: Trial, variant: Variant) -> None:
        known = self._by_variant.get(variant.id)
        if known is not None:
            self._record_duplicate(trial, variant, known)
            return
        self._progress.repeats = 0
        reason = self.setup.space.refusal(variant.recipe)
        if reason is not None:
            self._record_failed(trial, variant, VariantFailed(Failure.UNSUPPORTED, reason), {})
            return
        for attempt in (1, 2):
            seconds: dict[str, float] = {}
            try:
                artifact = self.evaluator.build(variant.recipe, seconds)
                twin = self._by_artifact.get((artifact.sha256, deployment_text(variant)))
                if twin is not None:
                    self._record_duplicate(trial, variant, twin)
                    return
                outcome = self.evaluator.measure(variant, artifact)
                outcome.seconds = seconds | outcome.seconds
                self._record_measured(trial, outcome)
            except VariantFailed as exc:
                if attempt == 1 and exc.failure in RETRIED:
                    self.observer.note(f"{exc.failure.value}: {exc.message} Trying once more.")
                    continue
                self._record_failed(trial, variant, exc, seconds)
            return

    # ---- records -------------------------------------------------------------------------------

    def _record_measured(self, trial: Trial, outcome: Outcome) -> None:
        verdict = self.evaluator.verdict(outcome)
        is_baseline = trial.number == 0
        ended_early = bool(outcome.broken) and outcome.stage.value != "quality" and not is_baseline
        record = _record(trial.number, outcome, verdict, state="pruned" if ended_early else "complete")
        if ended_early:
            record = replace(record, reason="certain violation of " + ", ".join(outcome.broken))
            self._sampler.tell_pruned(trial, record.to_json(), verdict.violations)
        else:
            measured = outcome.measured.get(self.ranking.axis)
            value = self.ranking.figures(measured).value * (-1 if self.ranking.maximize else 1)
            self._sampler.tell_measured(trial, record.to_json(), value=value, violations=verdict.violations)
        self._save_samples(trial.number, outcome)
        self._finish(record)

    def _record_failed(self, trial: Trial, variant: Variant, exc: VariantFailed, seconds: dict[str, float]) -> None:
        record = TrialRecord(
            id=variant.id,
            number=trial.number,
            state="failed",
            failure=exc.failure,
            reason=str(exc),
            stage="build" if not seconds else "profile",
            variant=variant,
            seconds=seconds,
            log=exc.log,
        )
        self._sampler.tell_failed(trial, record.to_json())
        self._finish(record)

    def _record_duplicate(self, trial: Trial, variant: Variant, known: TrialRecord) -> None:
        """Tell Optuna what is known already; after a few repeats, have a random new variant tried."""
        record = replace(known, id=variant.id, number=trial.number, state="duplicate", variant=variant, seconds={})
        record = replace(record, reason=f"same as trial {known.number}")
        violations = known.verdict.violations if known.verdict else {}
        if known.state == "complete":
            value = self.ranking.of(known).value * (-1 if self.ranking.maximize else 1)
            self._sampler.tell_measured(trial, record.to_json(), value=value, violations=violations)
        elif known.state == "pruned":
            self._sampler.tell_pruned(trial, record.to_json(), violations)
        else:
            self._sampler.tell_failed(trial, record.to_json())
        self._finish(record)
        self._progress.repeats += 1
        if self._progress.repeats >= REPEATS:
            self._progress.exhausted = not self._sampler.enqueue_unseen(self.setup.space, self._by_variant)
            if self._progress.exhausted:
                self.observer.note("every variant of this space was tried")

    def _finish(self, record: TrialRecord) -> None:
        self._remember(record)
        if self._tracker is not None:
            self._tracker.log_trial(record)

    def _remember(self, record: TrialRecord) -> None:
        self.records.append(record)
        if record.state != "duplicate":
            self._by_variant.setdefault(record.id, record)
            if record.artifact is not None:
                self._by_artifact.setdefault((record.artifact.sha256, deployment_text(record.variant)), record)

    def _save_samples(self, number: int, outcome: Outcome) -> None:
        """Raw readings, so that a verdict can be computed again."""
        import numpy as np

        if outcome.profile is None or outcome.profile.latency is None:
            return
        arrays = {"latency_s": outcome.profile.latency.latency_s, "block": outcome.profile.latency.block}
        beside = outcome.profile.baseline_latency
        if beside is not None:
            arrays |= {"baseline_latency_s": beside.latency_s, "baseline_block": beside.block}
        folder = self.setup.work / "samples"
        folder.mkdir(exist_ok=True)
        np.savez_compressed(folder / f"{number}.npz", **arrays)

    # ---- words ---------------------------------------------------------------------------------

    def _best_text(self) -> str | None:
        from autopilot.search.finalists import line_up

        queue = line_up(self.records, self.ranking)
        if not queue:
            return None
        best = queue[0]
        measured = best.measured.get(self.ranking.axis)
        if measured is None or measured.value is None:
            return None
        word = "" if best.verdict and best.verdict.overall.value == "in" else " (undecided)"
        ratio = f", {measured.ratio.value * 100:.0f}% of baseline" if measured.ratio else ""
        return f"{self.ranking.axis} {measured.value:.4g}{ratio}{word} · {recipe_text(best.variant)}"

    def _against_budget(self, record: TrialRecord) -> str:
        if record.verdict is None:
            return record.failure.value if record.failure else record.state
        said = [f"{axis} {judgement.value}" for axis, judgement in record.verdict.per_limit.items()]
        return ", ".join(said)

    # ---- end -----------------------------------------------------------------------------------

    def log(self, result: StudyResult, out: Path) -> StudyResult:
        """MLflow last: its trouble must not cost the result, which is on disk already."""
        from autopilot.outputs import write_result

        if self._tracker is not None:
            folder = out / "best" if result.status == "in_budget" else None
            try:
                reference = self._tracker.finish(result, out, folder)
                result = replace(result, mlflow=reference.to_json())
                write_result(result, out)
            except AutopilotError as exc:
                self.observer.note(f"not logged to MLflow: {exc}")
        if self._state is not None:
            replace(self._state, finished=True).save(self.setup.work)
        self.observer.finished()
        return result


def evaluator_axis(name: str) -> bool:
    """Whether more is better on axis ``name``."""
    from autopilot.plugins import find_axis

    found = find_axis(name)
    return found is not None and found[1].higher_is_better


def _record(number: int, outcome: Outcome, verdict: Verdict, *, state: str) -> TrialRecord:
    return TrialRecord(
        id=outcome.variant.id,
        number=number,
        state=state,
        failure=None,
        reason="",
        stage=outcome.stage.value,
        variant=outcome.variant,
        measured=dict(outcome.measured),
        verdict=verdict,
        seconds=dict(outcome.seconds),
        artifact=outcome.artifact,
        warnings=tuple(outcome.warnings),
    )


def _baseline_error(exc: VariantFailed, setup: Setup) -> AutopilotError:
    """The model as given doesn't run: bad input where the runtime refuses it, else our failure."""
    log = f"\n{exc.log}" if exc.log else ""
    message = f"{setup.info.path}: the model as given can't be measured ({exc.failure.value}): {exc.message}{log}"
    if exc.failure in (Failure.UNSUPPORTED, Failure.WRONG_NUMERICS, Failure.BUILD_ERROR):
        return ModelError(message, exc.hint)
    return BaselineFailed(message, exc.hint or "Run it once with onnxruntime alone to see whether it works there.")


def recipe_text(variant: Variant) -> str:
    """``fuse(method=onnxslim) → static_int8(…)``, or ``as given``."""
    steps = []
    for step in variant.recipe.steps:
        inside = ", ".join(f"{k}={v}" for k, v in step.params)
        steps.append(f"{step.technique}({inside})" if inside else step.technique)
    return " → ".join(steps) or "as given"


def deployment_text(variant: Variant) -> str:
    """``cpu threads=1 batch=1 arena=True …``."""
    d = variant.deployment
    return " ".join([d.provider, f"threads={d.threads}", f"batch={d.batch}", *(f"{k}={v}" for k, v in d.options)])

