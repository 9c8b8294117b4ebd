"""Build and measure one variant, cheap questions first, and stop at the first certain violation."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autopilot import plugins
from autopilot.artifact import Artifact
from autopilot.bench.launcher import Server, evaluate, measure_cold, measure_empty, measure_latency
from autopilot.build import build
from autopilot.budget import Judgement, Verdict
from autopilot.contracts import Array, Stage
from autopilot.data import Split
from autopilot.errors import Failure, VariantFailed
from autopilot.model import inspect, int8_audit
from autopilot.observer import Observer
from autopilot.profile import Int8Audit, Interval, LatencyReading, Measurement, Profile, QualityReading
from autopilot.recipe import Deployment, Recipe, Variant, digest
from autopilot.scoring import can_reject, score, scored_output
from autopilot.search.prepare import Setup

_ORDER = tuple(Stage)
# Below this many samples a random prefix saves less than the extra process costs.
PREFIX = 512
PREFIX_PAYS_S = 3.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How long latency is sampled: until decided and the objective's ratio is this sure, or the cap."""

    cap_s: float
    precision: float
    split: str


SCREENING = Effort(cap_s=4.0, precision=0.02, split="validation")
VERIFYING = Effort(cap_s=30.0, precision=0.01, split="test")


@dataclass(slots=True)
class Outcome:
    """What is known of one variant after its trial."""

    variant: Variant
    artifact: Artifact
    measured: dict[str, Measurement] = field(default_factory=dict)
    profile: Profile | None = None
    stage: Stage = Stage.BUILD
    broken: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, key: str) -> Iterator[None]:
        """Add the wall seconds of a block to ``seconds[key]``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - start


@dataclass(slots=True)
class Reference:
    """The baseline: what every variant is compared with. ``outputs`` by split name."""

    outcome: Outcome
    outputs: dict[str, Path]
    empty_memory_bytes: int


class Evaluator:
    """Runs the middle verbs of the loop for one study: build, profile, judge.

    The baseline's server stays alive between trials, asleep on its pipe, so that each variant's
    latency is read in blocks interleaved with the baseline's.
    """

    def __init__(self, setup: Setup, observer: Observer) -> None:
        self.setup = setup
        self.observer = observer
        self.reference: Reference | None = None
        self.limits = setup.limits
        self._server: Server | None = None
        self._quality: dict[str, tuple[QualityReading, Int8Audit | None]] = {}

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the baseline's server."""
        if self._server is not None:
            self._server.close()
            self._server = None

    # ---- build ---------------------------------------------------------------------------------

    def build(self, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        """The artifact of ``recipe``, from the cache where it was built before."""
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

    # ---- measure -------------------------------------------------------------------------------

    def measure_baseline(self) -> Outcome:
        """Measure the model as given in its default deployment; every pass, nothing ends early."""
        variant = Variant(Recipe(), self.setup.space.default_deployment())
        outcome = Outcome(variant, self.setup.model)
        empty = measure_empty(variant.deployment, self.limits)
        self.reference = Reference(outcome, {}, empty)
        self._cold(outcome)
        self._latency(outcome, SCREENING)
        self._score(outcome, self.setup.splits.validation)
        outcome.stage = Stage.QUALITY
        return outcome

    def measure(self, variant: Variant, artifact: Artifact, effort: Effort = SCREENING) -> Outcome:
        """Measure ``variant``; with ``SCREENING`` a certain violation ends it early.

        Raises:
            VariantFailed: the variant can't run, or isn't what it claims to be.
        """
        outcome = Outcome(variant, artifact)
        screening = effort is SCREENING
        split = self.setup.splits.validation if effort.split == "validation" else self.setup.splits.test
        passes = (
            (Stage.SMOKE, lambda: self._cold(outcome)),
            (Stage.LATENCY, lambda: self._latency(outcome, effort)),
            (Stage.QUALITY, lambda: self._score(outcome, split, early=screening)),
        )
        self._summarise(outcome, Profile(variant.id, size_bytes=artifact.size_bytes), Stage.BUILD)
        for stage, run in passes:
            outcome.broken = self.setup.problem.budget.broken(outcome.measured)
            if outcome.broken and screening:
                return outcome
            run()
            outcome.stage = stage
        outcome.broken = self.setup.problem.budget.broken(outcome.measured)
        return outcome

    def verdict(self, outcome: Outcome) -> Verdict:
        """The budget's judgement of what was measured."""
        return self.setup.problem.budget.judge(outcome.measured)

    def _cold(self, outcome: Outcome) -> None:
        self.observer.phase("starting and loading")
        assert self.reference is not None
        with outcome.timed("load"):
            cold = measure_cold(
                outcome.artifact.path,
                outcome.variant.deployment,
                split=self.setup.splits.validation,
                limits=self.limits,
            )
        outcome.warnings.extend(cold.warnings)
        profile = Profile(
            outcome.variant.id,
            size_bytes=outcome.artifact.size_bytes,
            load_s=cold.load_s,
            peak_memory_bytes=cold.peak_memory_bytes,
            empty_memory_bytes=self.reference.empty_memory_bytes,
            placement=cold.placement,
        )
        self._summarise(outcome, profile, Stage.SMOKE)

    def _latency(self, outcome: Outcome, effort: Effort) -> None:
        self.observer.phase("measuring latency beside the baseline")
        split = self.setup.splits.validation if effort.split == "validation" else self.setup.splits.test
        baseline_only = self.reference is not None and outcome is self.reference.outcome
        with outcome.timed("profile"):
            if effort is not SCREENING:
                self.close()  # verification starts both servers afresh
            baseline = self._baseline_server(split)
            if baseline_only:
                candidate, other = baseline, None
            else:
                candidate = self._start(outcome.artifact, outcome.variant.deployment, split)
                candidate.warm_up()
                other = baseline
            try:
                reading, beside = measure_latency(
                    candidate, other, decided=self._decider(outcome, effort), cap_s=effort.cap_s
                )
            finally:
                if candidate is not baseline:
                    candidate.close()
        self._summarise(outcome, self._with_latency(outcome, reading, beside), Stage.LATENCY)

    def _with_latency(self, outcome: Outcome, reading: LatencyReading, beside: LatencyReading | None) -> Profile:
        assert outcome.profile is not None
        return replace(
            outcome.profile,
            latency=reading,
            baseline_latency=beside,
            price_per_hour=self.setup.problem.target.price_per_hour,
        )

    def _decider(self, outcome: Outcome, effort: Effort) -> Decider:
        return Decider(self, outcome, effort)

    def _start(self, artifact: Artifact, deployment: Deployment, split: Split) -> Server:
        return Server.start(artifact.path, deployment, split=split, limits=self.limits)

    def _baseline_server(self, split: Split) -> Server:
        if self._server is None:
            deployment = self.setup.space.default_deployment()
            self._server = self._start(self.setup.model, deployment, split)
            self._server.warm_up()
        return self._server

    # ---- quality -------------------------------------------------------------------------------

    def _score(self, outcome: Outcome, split: Split, *, early: bool = False) -> None:
        assert outcome.profile is not None
        key, batch = self._quality_key(outcome, split)
        with outcome.timed("evaluate"):
            if key not in self._quality:
                self.observer.phase("scoring")
                reading, audit = self._evaluate(outcome, split, batch, early=early)
                if reading is None:
                    outcome.broken = ("quality_drop",)
                    return
                self._quality[key] = (reading, audit)
            reading, audit = self._quality[key]
        self._summarise(outcome, replace(outcome.profile, quality=reading, int8=audit), Stage.QUALITY)
        if audit is not None and audit.is_fake and self._claims_int8(outcome.variant.recipe):
            raise VariantFailed(
                Failure.FAKE_INT8,
                f"only {audit.executed} of {audit.claimed} nodes that should be int8 run in int8 on "
                f"{outcome.variant.deployment.provider}.",
            )

    def _quality_key(self, outcome: Outcome, split: Split) -> tuple[str, int]:
        deployment = outcome.variant.deployment
        dynamic = inspect(outcome.artifact.path).dynamic_quantized
        batch = self.setup.scoring_batch(deployment, dynamic=dynamic)
        numerics = [deployment.provider, dict(deployment.options).get("graph_optimization"), batch]
        return digest([outcome.artifact.sha256, numerics, split.digest, self.setup.problem.metric.name]), batch

    @staticmethod
    def _claims_int8(recipe: Recipe) -> bool:
        return any(plugins.techniques()[step.technique].claims_int8 for step in recipe.steps)

    def _evaluate(
        self, outcome: Outcome, split: Split, batch: int, *, early: bool
    ) -> tuple[QualityReading | None, Int8Audit | None]:
        """Outputs on ``split`` against the baseline's; None when a prefix already rejects."""
        assert self.reference is not None
        is_baseline = outcome is self.reference.outcome
        if not is_baseline:
            self.baseline_outputs(split)
        folder = self.setup.work / "outputs" / f"{outcome.variant.id}-{split.name}"
        shutil.rmtree(folder, ignore_errors=True)
        first = PREFIX if early and split.n >= 2 * PREFIX and self._prefix_pays(outcome, split) else split.n
        parts = []
        for start, stop in ((0, first), (first, split.n)):
            if start == stop:
                continue
            parts.append(self._outputs(outcome, split, (start, stop), batch, folder / f"{start}"))
            if stop < split.n and self._rejects(parts[0], split, stop):
                shutil.rmtree(folder, ignore_errors=True)
                return None, None
        audit = self._audit(outcome, folder / "0" / "optimized.onnx")
        if is_baseline:
            self.reference.outputs[split.name] = folder
        reading = self._reading(parts, split)
        if not is_baseline:
            shutil.rmtree(folder, ignore_errors=True)
        return reading, audit

    def _prefix_pays(self, outcome: Outcome, split: Split) -> bool:
        measured = outcome.measured.get("latency_mean_ms")
        return measured is None or measured.value is None or measured.value / 1e3 * split.n > PREFIX_PAYS_S

    def baseline_outputs(self, split: Split) -> Path:
        """Folder of the baseline's outputs on ``split``, computed once."""
        assert self.reference is not None
        if split.name not in self.reference.outputs:
            base = self.reference.outcome
            folder = self.setup.work / "outputs" / f"{base.variant.id}-{split.name}"
            shutil.rmtree(folder, ignore_errors=True)
            batch = self._quality_key(base, split)[1]
            self._outputs(base, split, (0, split.n), batch, folder / "0")
            self.reference.outputs[split.name] = folder
        return self.reference.outputs[split.name]

    def _outputs(
        self, outcome: Outcome, split: Split, span: tuple[int, int], batch: int, folder: Path
    ) -> dict[str, Array]:
        """All outputs by name for samples ``span`` of ``split``; shape (stop - start, …)."""
        found = evaluate(
            outcome.artifact.path,
            outcome.variant.deployment,
            split=split,
            start=span[0],
            stop=span[1],
            batch=batch,
            folder=folder,
            limits=self.limits,
            optimized=span[0] == 0,
        )
        return found.load()

    def _rejects(self, outputs: dict[str, Array], split: Split, stop: int) -> bool:
        limit = self.setup.problem.budget.limit("quality_drop")
        if limit is None or limit.relative:
            return False
        baseline, labels = self._baseline_and_labels(split)
        index = scored_output(self.setup.problem.metric, tuple(outputs))
        return can_reject(
            self.setup.metric,
            self.setup.problem.metric.options,
            outputs_prefix=list(outputs.values())[index],
            baseline_prefix=list(baseline.values())[index][:stop],
            labels_prefix=None if labels is None else labels[:stop],
            n_total=split.n,
            bound=limit.effective,
        )

    def _baseline_and_labels(self, split: Split) -> tuple[dict[str, Array], Array | None]:
        return load_outputs(self.baseline_outputs(split) / "0"), split.labels

    def _reading(self, parts: list[dict[str, Array]], split: Split) -> QualityReading:
        outputs = parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        baseline, labels = self._baseline_and_labels(split)
        index = scored_output(self.setup.problem.metric, tuple(outputs))
        return score(
            self.setup.metric,
            self.setup.problem.metric.options,
            outputs=list(outputs.values())[index],
            baseline=list(baseline.values())[index],
            labels=labels,
            split_name=split.name,
            all_outputs=outputs,
            all_baseline=baseline,
        )

    @staticmethod
    def _audit(outcome: Outcome, optimized: Path) -> Int8Audit | None:
        return int8_audit(outcome.artifact.path, optimized) if optimized.exists() else None

    # ---- summaries -----------------------------------------------------------------------------

    def _summarise(self, outcome: Outcome, profile: Profile, stage: Stage) -> None:
        """Measurements of every axis that is known after ``stage``."""
        outcome.profile = profile
        known = _ORDER[: _ORDER.index(stage) + 1]
        for name in self.axis_names():
            found = plugins.find_axis(name)
            if found is None or found[1].stage not in known:
                continue
            measured = found[0].summarise(profile, name)
            outcome.measured[name] = self._with_ratio(outcome, measured)

    def axis_names(self) -> tuple[str, ...]:
        """Declared axes, then those that the spec alone names (an odd percentile)."""
        wanted = (*self.setup.problem.budget.axes, self.setup.problem.objective)
        return tuple(dict.fromkeys([*plugins.axis_names(), *wanted]))

    def _with_ratio(self, outcome: Outcome, measured: Measurement) -> Measurement:
        """Relative limits on axes that aren't interleaved are judged against the baseline's own figure."""
        if measured.value is None or measured.ratio is not None or self.reference is None:
            return measured
        if outcome is self.reference.outcome:
            return replace(measured, ratio=Interval(1.0, 1.0, 1.0))
        base = self.reference.outcome.measured.get(measured.axis)
        if base is None or base.value is None or base.value <= 0 or base.low is None or base.high is None:
            return measured
        low = measured.value if measured.low is None else measured.low
        high = measured.value if measured.high is None else measured.high
        widest = high / base.low if base.low > 0 else float("inf")
        return replace(measured, ratio=Interval(measured.value / base.value, low / base.high, widest))


class Decider:
    """Tells when a latency pass has seen enough: limits decided, objective sure, sample size reached.

    Looked at at growing distances, since each look costs a bootstrap.
    """

    def __init__(self, evaluator: Evaluator, outcome: Outcome, effort: Effort) -> None:
        self._evaluator = evaluator
        self._outcome = outcome
        self._effort = effort
        self._next = 0

    def __call__(self, reading: LatencyReading, beside: LatencyReading | None) -> bool:
        if len(reading.latency_s) < self._next:
            return False
        self._next = int(len(reading.latency_s) * 1.25) + 1
        measured = self._measurements(reading, beside)
        budget = self._evaluator.setup.problem.budget
        judged = {limit.axis: limit.judge(measured[limit.axis]) for limit in budget.limits if limit.axis in measured}
        if self._effort is SCREENING and Judgement.OUT in judged.values():
            return True
        if Judgement.UNDECIDED in judged.values():
            return False
        return self._sure(measured)

    def _measurements(self, reading: LatencyReading, beside: LatencyReading | None) -> Mapping[str, Measurement]:
        profile = self._evaluator._with_latency(self._outcome, reading, beside)
        problem = self._evaluator.setup.problem
        out = {}
        for name in {*problem.budget.axes, problem.objective, "latency_p50_ms"}:
            found = plugins.find_axis(name)
            if found is not None and found[1].stage is Stage.LATENCY:
                out[name] = found[0].summarise(profile, name)
        return out

    def _sure(self, measured: Mapping[str, Measurement]) -> bool:
        objective = measured.get(self._evaluator.setup.problem.objective, measured["latency_p50_ms"])
        figures = objective.ratio
        if figures is None:
            if objective.value is None or objective.low is None or objective.high is None:
                return True
            figures = Interval(objective.value, objective.low, objective.high)
        return (figures.high - figures.low) / 2 <= self._effort.precision * abs(figures.value)


def load_outputs(folder: Path) -> dict[str, Array]:
    """Memory-mapped outputs that ``evaluate`` left in ``folder``, by name."""
    from autopilot.bench.launcher import Evaluation

    return Evaluation.open(folder).load()
