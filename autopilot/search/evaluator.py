"""Build and measure one variant, cheap questions first, and stop at the first certain violation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from autopilot.artifact import Artifact
from autopilot.bench.compare import Comparison, Served, compare
from autopilot.budget import Verdict
from autopilot.build import build
from autopilot.build.cache import Cache
from autopilot.cache import SharedCache
from autopilot.contracts import Stage
from autopilot.data import Split
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.meters.placement import TIME_SHARE
from autopilot.observer import Observer
from autopilot.profile import Control, Profile, QualityReading
from autopilot.recipe import Recipe, Variant
from autopilot.search.allowance import Allowance
from autopilot.search.blame import Given, blamed, check_extremes
from autopilot.search.costs import take_costs
from autopilot.search.given import refuse_format
from autopilot.search.outcome import BASELINE, SCREENING, VERIFYING, Effort, GiveUp, Outcome
from autopilot.search.passes import Passes
from autopilot.search.preflight import baseline_error
from autopilot.search.prepare import Setup
from autopilot.search.stages import Screen
from autopilot.search.summary import measurement, with_ratio

# Starting the child that builds, and a technique that doesn't train, on a small model.
_USUAL_BUILD_S = 3.0
USUAL_ORDER = (Screen.LOAD, Screen.LATENCY, Screen.ENERGY, Screen.QUALITY)


class Evaluator:
    """Runs the middle verbs of the loop for one study: build, profile, judge.

    The baseline's server stays alive between trials, asleep on its pipe, so that each variant's
    latency is read in blocks interleaved with the baseline's. ``allowance``: what the children may take.
    """

    def __init__(self, setup: Setup, observer: Observer) -> None:
        self.setup = setup
        self.observer = observer
        self.allowance = Allowance(setup.limits)
        # What losses are told against, and the baseline too unless another plain way of running it is: see rivals.
        self.reference = Outcome(setup.given, setup.model)
        self.baseline_samples = "0"  # the baseline is trial 0, but for a run that goes on: see the loop
        self._cache = SharedCache.open(setup.work / "cache", observer.note)
        self._passes = Passes(setup, observer, self.reference, allowance=self.allowance, cache=self._cache)

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def baseline(self) -> Outcome:
        """What variants are read beside and compared with."""
        return self._passes.baseline

    @property
    def control(self) -> Control | None:
        """The study's A/A reading; None before the baseline was measured."""
        return self._passes.control

    def close(self) -> None:
        """End the baseline's server; let go of what was used of the cache."""
        try:
            self._passes.close()
        finally:
            self._cache.close()

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
                limits=self.allowance.limits,
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
            DataError: it fails on one of the samples.
        """
        try:
            outcome = self._measure_baseline()
        except VariantFailed as exc:
            raise self._blamed(exc) or baseline_error(exc, self.setup.info) from exc
        check_extremes(self._given, self.observer)
        return outcome

    def adopt(self, variant: Variant, artifact: Artifact) -> Outcome:
        """Make ``variant`` the baseline, and measure it as such; losses stay those against the model as given.

        Raises:
            VariantFailed: it can't be run; the baseline is then what it was.
        """
        before, control = self.baseline, self.control
        adopted = self.reference if variant.id == self.reference.variant.id else Outcome(variant, artifact)
        adopted.seconds.clear()  # of the reference, which was measured before
        adopted.warnings.clear()
        self._passes.take(adopted)
        try:
            return self._measure_baseline()
        except VariantFailed:
            self._passes.take(before, control)
            raise

    def _measure_baseline(self) -> Outcome:
        outcome, split = self.baseline, self.setup.splits.validation
        refuse_format(outcome.artifact.path, outcome.variant.deployment.provider)
        self._passes.cold(outcome)
        self._passes.latency(outcome, BASELINE, split)
        self._passes.energy(outcome, BASELINE, split)
        self._passes.score(outcome, split, early=False)
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
            Screen.LOAD: (Stage.SMOKE, lambda: self._passes.cold(outcome)),
            Screen.LATENCY: (Stage.LATENCY, lambda: self._passes.latency(outcome, effort, split, give_up)),
            Screen.ENERGY: (Stage.LATENCY, lambda: self._passes.energy(outcome, effort, split)),
            Screen.QUALITY: (Stage.QUALITY, lambda: self._passes.score(outcome, split, early=effort.ends_early)),
        }
        if effort is VERIFYING:
            self._baseline_quality(split)
        self._passes.summarise(outcome, Profile(variant.id, size_bytes=artifact.size_bytes), Stage.BUILD)
        if effort.ends_early and self._passes.knows_score(outcome, split):
            order = (Screen.LOAD, Screen.QUALITY, *(s for s in order if s not in (Screen.LOAD, Screen.QUALITY)))
        for stage, run in (passes[screen] for screen in order):
            outcome.broken = self.setup.problem.budget.broken(outcome.measured)
            reason = (
                "certain violation of " + ", ".join(outcome.broken) if outcome.broken else give_up(outcome.measured)
            )
            if reason is not None and effort.ends_early:
                outcome.cut_short = reason
                return outcome
            if effort.ends_early and self.allowance.is_over:
                raise VariantFailed(Failure.TIMEOUT, "the study's time was up before it was measured to the end.")
            _ran(run, outcome)
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
        self._passes.summarise(beside, profile, Stage.QUALITY, own_baseline=True)
        return beside

    def compare(self, a: Outcome, b: Outcome, *, q: float | None, cap_s: float) -> Comparison:
        """Two variants' latency against each other on the held-back data: percentile ``q``, None for the mean.

        Raises:
            VariantFailed: one of them can't be run any more.
        """
        self.close()
        served = [Served(outcome.artifact.path, outcome.variant.deployment) for outcome in (a, b)]
        return compare(*served, split=self.setup.splits.test, limits=self.allowance.limits, q=q, cap_s=cap_s)

    def take_costs(self, outcome: Outcome) -> None:
        """Where the time of a measured variant goes, on the held-back data; it may fail without harm."""
        take_costs(outcome, self.setup.splits.test, self.allowance.limits, self.observer)
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
            return self._passes.baseline_quality(split)
        except VariantFailed as exc:
            raise self._blamed(exc) or baseline_error(exc, self.setup.info, name) from exc

    def _blamed(self, exc: VariantFailed) -> DataError | None:
        """The sample that the model as given fails on, where there is one."""
        return blamed(exc, self._given, self.observer)

    @property
    def _given(self) -> Given:
        s = self.setup
        return Given(s.model, s.given.deployment, s.info, s.splits, s.problem.data, s.limits)

    def expected_s(self) -> Mapping[Screen, float]:
        """What stages should cost, from what they cost with the baseline."""
        latency_s = SCREENING.precise_s
        if self.setup.problem.traffic.is_server:  # windows of a fixed length, of two servers in place of one
            latency_s = 2 * (self.baseline.seconds.get("profile", 0.0) - self.baseline.seconds.get("control", 0.0))
        return {
            Screen.BUILD: _USUAL_BUILD_S,
            Screen.QUALITY: self.reference.seconds.get("evaluate", 0.0),
            Screen.LATENCY: latency_s,
        }

    def verdict(self, outcome: Outcome) -> Verdict:
        """The budget's judgement of what was measured."""
        return self.setup.problem.budget.judge(outcome.measured)


def _ran(run: Callable[[], None], outcome: Outcome) -> None:
    """Run one pass.

    Raises:
        VariantFailed: with the seconds that the trial has spent.
    """
    try:
        run()
    except VariantFailed as exc:
        exc.seconds = dict(outcome.seconds)
        raise
    except DataError as exc:
        # The baseline passed on the same samples: what the metric or a hook can't take is this variant's.
        failed = VariantFailed(Failure.WRONG_NUMERICS, f"its outputs can't be used: {exc.message}")
        failed.seconds = dict(outcome.seconds)
        raise failed from exc
