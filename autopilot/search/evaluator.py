"""Build and measure one variant, cheap questions first, and stop at the first certain violation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from autopilot.artifact import Artifact
from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import Comparison, Served, compare
from autopilot.bench.live import Server
from autopilot.budget import Verdict
from autopilot.build import build
from autopilot.build.cache import Cache
from autopilot.cache import SharedCache
from autopilot.contracts import Stage
from autopilot.data import Split
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.meters.placement import TIME_SHARE
from autopilot.observer import Observer
from autopilot.profile import Control, Measurement, Profile, QualityReading
from autopilot.recipe import Recipe, Variant
from autopilot.search import energy
from autopilot.search.audit import fake_int8, fallen, hold
from autopilot.search.cold import ColdPass
from autopilot.search.costs import take_costs
from autopilot.search.given import refuse_format
from autopilot.search.outcome import BASELINE, SCREENING, VERIFYING, Effort, GiveUp, Outcome
from autopilot.search.preflight import baseline_error
from autopilot.search.prepare import Setup
from autopilot.search.scored import QualityPass
from autopilot.search.stages import Screen
from autopilot.search.steadiness import Reading
from autopilot.search.summary import measurement, summarise, with_ratio
from autopilot.search.timing import LatencyPass

# A child may overrun the study's time by this much: with less, a build that was nearly done would be lost.
GRACE_S = 30.0
# Starting the child that builds, and a technique that doesn't train, on a small model.
_USUAL_BUILD_S = 3.0
USUAL_ORDER = (Screen.LOAD, Screen.LATENCY, Screen.ENERGY, Screen.QUALITY)


class Evaluator:
    """Runs the middle verbs of the loop for one study: build, profile, judge.

    The baseline's server stays alive between trials, asleep on its pipe, so that each variant's
    latency is read in blocks interleaved with the baseline's. ``deadline`` (on the monotonic clock,
    None for none) is when the study's time is up: children started late get less time.
    """

    def __init__(self, setup: Setup, observer: Observer) -> None:
        self.setup = setup
        self.observer = observer
        self.deadline: float | None = None
        # What losses are told against, and the baseline too unless another plain way of running it is: see rivals.
        self.reference = self.baseline = Outcome(setup.given, setup.model)
        self.baseline_samples = "0"  # the baseline is trial 0, but for a run that goes on: see the loop
        self._cache = SharedCache.open(setup.work / "cache", observer.note)
        self._quality = QualityPass(setup, self.reference, self._cache)
        self._timing = LatencyPass(setup, observer, self.baseline, lambda: self.limits)
        self._cold_pass = ColdPass(setup)

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def limits(self) -> ChildLimits:
        """The limits of a child that is started now."""
        if self.deadline is None:
            return self.setup.limits
        left_s = max(GRACE_S, self.deadline - time.monotonic())
        return replace(self.setup.limits, wall_s=min(self.setup.limits.wall_s, left_s))

    def close(self) -> None:
        """End the baseline's server; let go of what was used of the cache."""
        try:
            self._timing.close()
        finally:
            self._cache.close()

    @property
    def control(self) -> Control | None:
        """The study's A/A reading; None before the baseline was measured."""
        return self._timing.control

    def build(self, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        """The artifact of ``recipe``, from the cache where it was built before.

        Raises:
            VariantFailed: a step doesn't apply, failed, or went over the limits.
        """
        if not recipe.steps:
            return self.setup.model
        self.observer.doing("building " + " → ".join(step.technique for step in recipe.steps))
        start = time.perf_counter()
        try:
            return build(
                recipe,
                self.setup.model,
                calibration=self.setup.splits.calibration,
                cache=Cache.of(self._cache),
                threads=self.setup.target.cores,
                limits=self.limits,
                reused=lambda s: seconds.update(build_saved=seconds.get("build_saved", 0.0) + s),
                metric_is_classification=self.setup.classification,
                progress=self.observer.doing,
                training=self.setup.training,
            )
        finally:
            seconds["build"] = seconds.get("build", 0.0) + time.perf_counter() - start

    def measure_baseline(self) -> Outcome:
        """Measure the model as given in its default deployment; nothing ends it early.

        Raises:
            ModelError: the runtime refuses it.
            BaselineFailed: it can't be run for another reason.
        """
        try:
            return self._measure_baseline()
        except VariantFailed as exc:
            raise baseline_error(exc, self.setup.info) from exc

    def adopt(self, variant: Variant, artifact: Artifact) -> Outcome:
        """Make ``variant`` the baseline, and measure it as such; losses stay those against the model as given.

        Raises:
            VariantFailed: it can't be run; the baseline is then what it was.
        """
        before, control = self.baseline, self._timing.control
        self.baseline = self.reference if variant.id == self.reference.variant.id else Outcome(variant, artifact)
        self.baseline.seconds.clear()  # of the reference, which was measured before
        self.baseline.warnings.clear()
        self._timing.take(self.baseline)
        try:
            return self._measure_baseline()
        except VariantFailed:
            self.baseline = before
            self._timing.take(before, control)
            raise

    def _measure_baseline(self) -> Outcome:
        outcome, split = self.baseline, self.setup.splits.validation
        refuse_format(outcome.artifact.path, outcome.variant.deployment.provider)
        self._cold(outcome)
        self._latency(outcome, BASELINE, split)
        self._energy(outcome, BASELINE, split)
        self._score(outcome, split, early=False)
        outcome.stage = Stage.QUALITY
        return outcome

    def measure(
        self,
        variant: Variant,
        artifact: Artifact,
        effort: Effort = SCREENING,
        *,
        give_up: GiveUp = lambda measured: None,
        order: Sequence[Screen] = USUAL_ORDER,
    ) -> Outcome:
        """Measure ``variant``: screening on the validation split, verifying on the held-back test split.

        ``give_up`` is asked before each pass, with what was measured so far: a reason ends the trial.
        ``order`` is that of the passes; scores that are known already come first, since they cost nothing.

        Raises:
            VariantFailed: the variant can't run, or isn't what it claims to be.
            DataError: the held-back data don't fit the metric.
        """
        refuse_format(artifact.path, variant.deployment.provider)
        outcome = Outcome(variant, artifact, baseline_samples=self.baseline_samples)
        split = self.setup.splits.test if effort is VERIFYING else self.setup.splits.validation
        passes: Mapping[Screen, tuple[Stage, Callable[[], None]]] = {
            Screen.LOAD: (Stage.SMOKE, lambda: self._cold(outcome)),
            Screen.LATENCY: (Stage.LATENCY, lambda: self._latency(outcome, effort, split, give_up)),
            Screen.ENERGY: (Stage.LATENCY, lambda: self._energy(outcome, effort, split)),
            Screen.QUALITY: (Stage.QUALITY, lambda: self._score(outcome, split, early=effort.ends_early)),
        }
        if effort is VERIFYING:
            self._baseline_quality(split)
        self._summarise(outcome, Profile(variant.id, size_bytes=artifact.size_bytes), Stage.BUILD)
        if effort.ends_early and self._quality.knows(outcome, split):
            order = (Screen.LOAD, Screen.QUALITY, *(s for s in order if s not in (Screen.LOAD, Screen.QUALITY)))
        for stage, run in (passes[screen] for screen in order):
            outcome.broken = self.setup.problem.budget.broken(outcome.measured)
            reason = (
                "certain violation of " + ", ".join(outcome.broken) if outcome.broken else give_up(outcome.measured)
            )
            if reason is not None and effort.ends_early:
                outcome.cut_short = reason
                return outcome
            try:
                run()
            except DataError as exc:
                # The baseline passed on the same samples: what the metric or a hook can't take is this variant's.
                raise VariantFailed(Failure.WRONG_NUMERICS, f"its outputs can't be used: {exc.message}") from exc
            outcome.reach(stage)
        outcome.broken = self.setup.problem.budget.broken(outcome.measured)
        return outcome

    def baseline_beside(self, outcome: Outcome) -> Outcome:
        """The baseline's figures taken beside ``outcome``: interleaved latency, quality on the same samples."""
        assert self.baseline.profile is not None
        assert outcome.profile is not None
        split = self.setup.splits.test
        reading = self._baseline_quality(split)
        beside = replace(self.baseline, measured={}, profile=None)
        profile = replace(
            self.baseline.profile,
            latency=outcome.profile.baseline_latency,
            drift=outcome.profile.drift,
            quality=reading,
        )
        self._summarise(beside, profile, Stage.QUALITY, own_baseline=True)
        return beside

    def compare(self, a: Outcome, b: Outcome, *, q: float | None, cap_s: float) -> Comparison:
        """Two variants' latency against each other on the held-back data: percentile ``q``, None for the mean.

        Raises:
            VariantFailed: one of them can't be run any more.
        """
        self.close()
        served = [Served(outcome.artifact.path, outcome.variant.deployment) for outcome in (a, b)]
        return compare(*served, split=self.setup.splits.test, limits=self.limits, q=q, cap_s=cap_s)

    def take_costs(self, outcome: Outcome) -> None:
        """Where the time of a measured variant goes, on the held-back data; it may fail without harm."""
        take_costs(outcome, self.setup.splits.test, self.limits, self.observer)
        assert outcome.profile is not None
        if (found := measurement(TIME_SHARE.name, outcome.profile, Stage.QUALITY)) is not None:
            # As summarise() does, so that the kept readings give the same figure again.
            outcome.measured[TIME_SHARE.name] = with_ratio(
                found, self.baseline.measured if outcome.baseline_samples else None
            )

    def _baseline_quality(self, split: Split) -> QualityReading:
        """The baseline's score on ``split``: where that (or the model as given's) fails, no variant is to blame."""
        name = "the model as given" if self.baseline is self.reference else "the baseline of this study"
        try:
            if self.baseline is not self.reference:
                self._quality.run(self.reference, split, limits=self.limits, early=False)
            return self._quality.run(self.baseline, split, limits=self.limits, early=False)[0]
        except VariantFailed as exc:
            raise baseline_error(exc, self.setup.info, name) from exc

    def expected_s(self) -> Mapping[Screen, float]:
        """What stages should cost, from what they cost with the baseline."""
        return {
            Screen.BUILD: _USUAL_BUILD_S,
            Screen.QUALITY: self.reference.seconds.get("evaluate", 0.0),
            Screen.LATENCY: SCREENING.precise_s,
        }

    def verdict(self, outcome: Outcome) -> Verdict:
        """The budget's judgement of what was measured."""
        return self.setup.problem.budget.judge(outcome.measured)

    # ---- passes --------------------------------------------------------------------------------

    def _cold(self, outcome: Outcome) -> None:
        """Start, load, first answers, exit: load time, peak memory, placement."""
        self.observer.doing("starting and loading")
        baseline = None if outcome is self.baseline else self.baseline.measured
        with outcome.timed("load"):
            profile, warnings = self._cold_pass.run(outcome, limits=self.limits, baseline=baseline)
        outcome.warnings.extend(warnings)
        self._summarise(outcome, profile, Stage.SMOKE)
        with outcome.timed("load"):
            found = fallen(outcome, self.setup.splits.validation, self.limits, self.observer)
        self._hold(outcome, Failure.PROVIDER_FALLBACK, found)

    def _hold(self, outcome: Outcome, failure: Failure, found: str | None) -> None:
        hold(self.setup.problem, outcome, failure, found, is_baseline=outcome is self.baseline)

    def _energy(self, outcome: Outcome, effort: Effort, split: Split) -> None:
        """Energy a sample, in a process of its own; nothing where no counter is there or nobody asks."""
        if not energy.is_wanted(self.setup.problem, self.setup.target, effort):
            return
        self.observer.doing("measuring energy")
        assert outcome.profile is not None
        with outcome.timed("energy"):
            path, deployment = outcome.artifact.path, outcome.variant.deployment
            start = partial(Server.start, path, deployment, split=split, limits=self.limits)
            baseline = None if outcome is self.baseline else self.baseline.measured
            profile = energy.with_energy(outcome.profile, start, self.setup.problem.budget, baseline)
        self._summarise(outcome, profile, Stage.LATENCY)

    def _latency(self, outcome: Outcome, effort: Effort, split: Split, give_up: GiveUp = lambda measured: None) -> None:
        """Blocks of requests beside the baseline's, on the same cores."""
        self.observer.doing("measuring latency" + ("" if outcome is self.baseline else " beside the baseline"))
        problem = self.setup.problem
        names = tuple(dict.fromkeys([*problem.budget.axes, *problem.objectives, "latency_p50_ms"]))

        def known(reading: Reading) -> Mapping[str, Measurement]:
            profile = self._with_latency(outcome, reading)
            return {n: m for n in names if (m := measurement(n, profile, Stage.LATENCY)) is not None}

        with outcome.timed("profile"):
            reading = self._timing.run(outcome, effort, split, known, give_up)
        self._summarise(outcome, self._with_latency(outcome, reading), Stage.LATENCY)

    def _with_latency(self, outcome: Outcome, reading: Reading) -> Profile:
        assert outcome.profile is not None
        return replace(
            outcome.profile,
            latency=reading.latency,
            baseline_latency=reading.beside,
            control=self._timing.control,
            drift=reading.drift,
        )

    def _score(self, outcome: Outcome, split: Split, *, early: bool) -> None:
        """Quality against the baseline on the same samples; audits what claims to be int8."""
        self.observer.doing("scoring")
        with outcome.timed("evaluate"):
            reading, audit = self._quality.run(outcome, split, limits=self.limits, early=early)
        if TIME_SHARE.name in (*self.setup.problem.budget.axes, *self.setup.problem.objectives):
            take_costs(outcome, split, self.limits, self.observer)
        assert outcome.profile is not None
        self._summarise(outcome, replace(outcome.profile, quality=reading, int8=audit), Stage.QUALITY)
        if reading.n < split.n:
            outcome.cut_short = f"certain violation of quality_drop on the first {reading.n} samples"
        self._hold(outcome, Failure.FAKE_INT8, fake_int8(audit, outcome.variant.deployment.provider))

    def _summarise(self, outcome: Outcome, profile: Profile, stage: Stage, *, own_baseline: bool = False) -> None:
        """Measurements of every axis that is known after ``stage``."""
        own_baseline = own_baseline or outcome is self.baseline
        outcome.profile = profile
        baseline = None if own_baseline else self.baseline.measured
        outcome.measured |= summarise(self.setup.problem, profile, stage, baseline)
