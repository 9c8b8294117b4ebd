"""Build and measure one variant, cheap questions first, and stop at the first certain violation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from autopilot import plugins
from autopilot.artifact import Artifact
from autopilot.bench.launcher import Server, measure_cold, measure_empty, measure_latency
from autopilot.budget import Verdict
from autopilot.build import build
from autopilot.contracts import Stage
from autopilot.data import Split
from autopilot.errors import Failure, VariantFailed
from autopilot.observer import Observer
from autopilot.profile import Interval, LatencyReading, Measurement, Profile
from autopilot.recipe import Deployment, Recipe, Variant
from autopilot.search.decider import Decider
from autopilot.search.outcome import SCREENING, VERIFYING, Effort, Outcome
from autopilot.search.prepare import Setup
from autopilot.search.scored import QualityPass

_ORDER = tuple(Stage)
# Why a trial can't tell anything that matters, from what was measured so far; None to go on.
GiveUp = Callable[[Mapping[str, Measurement]], str | None]
# The fewest starts whose spread gives an interval worth having.
COLD_STARTS = 5


class Evaluator:
    """Runs the middle verbs of the loop for one study: build, profile, judge.

    The baseline's server stays alive between trials, asleep on its pipe, so that each variant's
    latency is read in blocks interleaved with the baseline's. ``limits`` may be lowered by the
    loop as time runs out.
    """

    def __init__(self, setup: Setup, observer: Observer) -> None:
        self.setup = setup
        self.observer = observer
        self.limits = setup.limits
        variant = Variant(Recipe(), setup.space.default_deployment())
        self.baseline = Outcome(variant, setup.model)
        self._quality = QualityPass(setup, self.baseline)
        self._server: Server | None = None
        self._empty_bytes: int | None = None

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the baseline's server."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def build(self, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        """The artifact of ``recipe``, from the cache where it was built before.

        Raises:
            VariantFailed: a step doesn't apply, failed, or went over the limits.
        """
        if not recipe.steps:
            return self.setup.model
        self.observer.phase("building " + " → ".join(step.technique for step in recipe.steps))
        start = time.perf_counter()
        try:
            return build(
                recipe,
                self.setup.model,
                calibration=self.setup.splits.calibration,
                cache=self.setup.work / "cache",
                threads=self.setup.target.cores,
                limits=self.limits,
                metric_is_classification=self.setup.classification,
            )
        finally:
            seconds["build"] = seconds.get("build", 0.0) + time.perf_counter() - start

    def measure_baseline(self) -> Outcome:
        """Measure the model as given in its default deployment; nothing ends it early.

        Raises:
            VariantFailed: it can't be run.
        """
        outcome = self.baseline
        with outcome.timed("load"):
            self._empty_bytes = measure_empty(outcome.variant.deployment, self.limits)
        self._cold(outcome)
        self._latency(outcome, SCREENING, self.setup.splits.validation)
        self._score(outcome, self.setup.splits.validation, early=False)
        outcome.stage = Stage.QUALITY
        return outcome

    def measure(
        self,
        variant: Variant,
        artifact: Artifact,
        effort: Effort = SCREENING,
        *,
        give_up: GiveUp = lambda measured: None,
    ) -> Outcome:
        """Measure ``variant``: screening on the validation split, verifying on the held-back test split.

        ``give_up`` is asked before each pass, with what was measured so far: a reason ends the trial.

        Raises:
            VariantFailed: the variant can't run, or isn't what it claims to be.
        """
        outcome = Outcome(variant, artifact)
        split = self.setup.splits.test if effort is VERIFYING else self.setup.splits.validation
        passes: tuple[tuple[Stage, Callable[[], None]], ...] = (
            (Stage.SMOKE, lambda: self._cold(outcome)),
            (Stage.LATENCY, lambda: self._latency(outcome, effort, split)),
            (Stage.QUALITY, lambda: self._score(outcome, split, early=effort.ends_early)),
        )
        self._summarise(outcome, Profile(variant.id, size_bytes=artifact.size_bytes), Stage.BUILD)
        for stage, run in passes:
            outcome.broken = self.setup.problem.budget.broken(outcome.measured)
            reason = (
                "certain violation of " + ", ".join(outcome.broken) if outcome.broken else give_up(outcome.measured)
            )
            if reason is not None and effort.ends_early:
                outcome.cut_short = reason
                return outcome
            run()
            outcome.stage = stage
        outcome.broken = self.setup.problem.budget.broken(outcome.measured)
        return outcome

    def baseline_beside(self, outcome: Outcome) -> Outcome:
        """The baseline's figures taken beside ``outcome``: interleaved latency, quality on the same samples."""
        assert self.baseline.profile is not None
        assert outcome.profile is not None
        split = self.setup.splits.test
        reading, _ = self._quality.run(self.baseline, split, limits=self.limits, early=False)
        beside = replace(self.baseline, measured={}, profile=None)
        profile = replace(self.baseline.profile, latency=outcome.profile.baseline_latency, quality=reading)
        self._summarise(beside, profile, Stage.QUALITY, own_baseline=True)
        return beside

    def verdict(self, outcome: Outcome) -> Verdict:
        """The budget's judgement of what was measured."""
        return self.setup.problem.budget.judge(outcome.measured)

    # ---- passes --------------------------------------------------------------------------------

    def _cold(self, outcome: Outcome) -> None:
        """Start, load, first answers, exit: load time, peak memory, placement."""
        self.observer.phase("starting and loading")
        deployment = outcome.variant.deployment
        with outcome.timed("load"):
            cold = measure_cold(
                outcome.artifact.path,
                deployment,
                split=self.setup.splits.validation,
                limits=self.limits,
                repeats=self._starts,
            )
        outcome.warnings.extend(cold.warnings)
        profile = Profile(
            outcome.variant.id,
            size_bytes=outcome.artifact.size_bytes,
            load_s=cold.load_s,
            peak_memory_bytes=cold.peak_memory_bytes,
            empty_memory_bytes=self._empty_bytes,
            placement=cold.placement,
            price_per_hour=self.setup.problem.target.price_per_hour,
            energy_reason=self.setup.target.energy_reason,
            environment=self._environment(deployment),
        )
        self._summarise(outcome, profile, Stage.SMOKE)

    @property
    def _starts(self) -> int:
        """Fresh processes to start: several where start time is judged, since one has no interval."""
        problem = self.setup.problem
        return COLD_STARTS if "load_s" in (*problem.budget.axes, problem.objective) else 1

    @staticmethod
    def _environment(deployment: Deployment) -> dict[str, str]:
        """What the placement meter compares the runtime's own report with."""
        name = getattr(plugins.providers()[deployment.provider], "execution_provider", None)
        return {"execution_provider": name} if name else {}

    def _latency(self, outcome: Outcome, effort: Effort, split: Split) -> None:
        """Blocks of requests beside the baseline's, on the same cores."""
        self.observer.phase("measuring latency beside the baseline")
        with outcome.timed("profile"):
            if not effort.ends_early:
                self.close()  # verification starts both servers afresh
            baseline = self._baseline_server(split)
            if outcome is self.baseline:
                reading, beside = self._read(outcome, baseline, None, effort)
            else:
                with self._start(outcome.artifact, outcome.variant.deployment, split) as candidate:
                    reading, beside = self._read(outcome, candidate, baseline, effort)
        self._summarise(outcome, self._with_latency(outcome, reading, beside), Stage.LATENCY)

    def _read(
        self, outcome: Outcome, candidate: Server, other: Server | None, effort: Effort
    ) -> tuple[LatencyReading, LatencyReading | None]:
        problem = self.setup.problem
        names = tuple(dict.fromkeys([*problem.budget.axes, problem.objective, "latency_p50_ms"]))

        def summarise(reading: LatencyReading, beside: LatencyReading | None) -> Mapping[str, Measurement]:
            profile = self._with_latency(outcome, reading, beside)
            return {n: m for n in names if (m := _measurement(n, profile, Stage.LATENCY)) is not None}

        decided = Decider(summarise, problem.budget, problem.objective, effort)
        readings = measure_latency(candidate, other, decided=decided, cap_s=effort.cap_s)
        outcome.warnings.extend(w for w in candidate.warnings if w not in outcome.warnings)
        return readings

    @staticmethod
    def _with_latency(outcome: Outcome, reading: LatencyReading, beside: LatencyReading | None) -> Profile:
        assert outcome.profile is not None
        return replace(outcome.profile, latency=reading, baseline_latency=beside)

    def _start(self, artifact: Artifact, deployment: Deployment, split: Split) -> Server:
        return Server.start(artifact.path, deployment, split=split, limits=self.limits)

    def _baseline_server(self, split: Split) -> Server:
        if self._server is None:
            self._server = self._start(self.setup.model, self.baseline.variant.deployment, split)
        return self._server

    def _score(self, outcome: Outcome, split: Split, *, early: bool) -> None:
        """Quality against the baseline on the same samples; audits what claims to be int8."""
        self.observer.phase("scoring")
        with outcome.timed("evaluate"):
            reading, audit = self._quality.run(outcome, split, limits=self.limits, early=early)
        assert outcome.profile is not None
        self._summarise(outcome, replace(outcome.profile, quality=reading, int8=audit), Stage.QUALITY)
        if reading.n < split.n:
            outcome.cut_short = f"certain violation of quality_drop on the first {reading.n} samples"
        if audit is not None and audit.is_fake:
            raise VariantFailed(
                Failure.FAKE_INT8,
                f"only {audit.executed} of {audit.claimed} nodes that should be int8 run in int8 on "
                f"{outcome.variant.deployment.provider}.",
            )

    # ---- summaries -----------------------------------------------------------------------------

    def _summarise(self, outcome: Outcome, profile: Profile, stage: Stage, *, own_baseline: bool = False) -> None:
        """Measurements of every axis that is known after ``stage``."""
        own_baseline = own_baseline or outcome is self.baseline
        outcome.profile = profile
        for name in self._axis_names():
            found = plugins.find_axis(name)
            if found is None or _ORDER.index(found[1].stage) > _ORDER.index(stage):
                continue
            outcome.measured[name] = self._with_ratio(found[0].summarise(profile, name), own_baseline=own_baseline)

    def _axis_names(self) -> tuple[str, ...]:
        """Declared axes, then those that the spec alone names (an odd percentile)."""
        wanted = (*self.setup.problem.budget.axes, self.setup.problem.objective)
        return tuple(dict.fromkeys([*plugins.axis_names(), *wanted]))

    def _with_ratio(self, measured: Measurement, *, own_baseline: bool) -> Measurement:
        """Relative limits on axes that aren't interleaved are judged against the baseline's own figure."""
        if measured.value is None or measured.ratio is not None:
            return measured
        if own_baseline:
            return replace(measured, ratio=Interval(1.0, 1.0, 1.0))
        base = self.baseline.measured.get(measured.axis)
        if base is None or base.value is None or base.value <= 0 or base.low is None or base.high is None:
            return measured
        low = measured.value if measured.low is None else measured.low
        high = measured.value if measured.high is None else measured.high
        widest = high / base.low if base.low > 0 else float("inf")
        return replace(measured, ratio=Interval(measured.value / base.value, low / base.high, widest))


def _measurement(name: str, profile: Profile, stage: Stage) -> Measurement | None:
    """The measurement of axis ``name`` if it belongs to ``stage``."""
    found = plugins.find_axis(name)
    return found[0].summarise(profile, name) if found is not None and found[1].stage is stage else None
