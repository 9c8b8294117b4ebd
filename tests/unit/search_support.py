"""A simulated study: a world of variants with known figures, in place of models and processes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from optuna.trial import TrialState

from autopilot.artifact import Artifact
from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import Comparison
from autopilot.budget import Budget, Limit, Verdict
from autopilot.contracts import Metric, Slot, Stage, Technique
from autopilot.data import Splits
from autopilot.domain import Choice, Domain
from autopilot.errors import Failure, VariantFailed
from autopilot.model import ModelInfo
from autopilot.model.inspect import TensorInfo
from autopilot.observer import NullObserver
from autopilot.profile import Control, Interval, LatencyReading, Measurement, Profile
from autopilot.recipe import Recipe, Variant
from autopilot.result import TrialRecord
from autopilot.result import TrialState as RecordState
from autopilot.search.allowance import Allowance
from autopilot.search.outcome import SCREENING, VERIFYING, Effort, Outcome
from autopilot.search.prepare import Setup
from autopilot.search.stages import Screen
from autopilot.search.timetable import Timetable
from autopilot.space import SearchSpace
from autopilot.spec import DataSpec, MetricSpec, Problem, SearchSpec, TargetSpec, Traffic
from autopilot.target import Target

BUDGET = Budget((Limit("latency_p50_ms", 0.6, relative=True), Limit("quality_drop", 0.01)))
TARGET = Target.detect()


def technique(name: str, slot: Slot, **more: Any) -> Technique:
    """A technique that changes nothing; its parameter makes variants."""
    told: dict[str, Any] = {
        "parameters": {"kind": Choice(("a", "b", "c"))},
        "apply": lambda source, folder, params, context: None,
        "summary": "",
        "version": 1,
    }
    return Technique(name=name, slot=slot, **(told | more))


def space_of(*techniques: Technique, arena: tuple[bool, ...] = (True, False)) -> SearchSpace:
    """A space of ``techniques`` on the CPU provider."""
    chosen: dict[str, tuple[Technique, Mapping[str, Domain]]] = {t.name: (t, dict(t.parameters)) for t in techniques}
    return SearchSpace(chosen, {"cpu": {"arena": Choice(arena)}}, (1,), (1,))


SPACE = space_of(technique("slim", Slot.GRAPH), technique("int8", Slot.PRECISION))


def info_of(batch: int | None = None, *, inputs: tuple[str, ...] = ("x",), path: str = "model.onnx") -> ModelInfo:
    """What is known of a model that isn't there."""
    tensors = tuple(TensorInfo(name, "float32", (batch or "N", 4)) for name in inputs)
    return ModelInfo(
        path=Path(path),
        files=(Path(path),),
        inputs=tensors,
        outputs=(TensorInfo("y", "float32", (batch or "N", 3)),),
        opset=17,
        op_counts={"MatMul": 1},
        quantized=False,
        has_control_flow=False,
        dynamic_quantized=False,
        parameters=12,
        batch=batch,
    )


def split(name: str = "validation", n: int = 600, *, batched: bool = True) -> Any:
    """What the search needs to know of a split."""
    known = {"name": name, "n": n, "digest": name, "batched": batched, "labels": np.zeros(n, int), "folder": Path(name)}
    return SimpleNamespace(**known, preprocess=None, postprocess=None, whole_numbers=dict)


def setup_of(
    work: Path,
    *,
    budget: Budget = BUDGET,
    objective: str = "latency_p50_ms",
    space: SearchSpace = SPACE,
    search: SearchSpec | None = None,
    scenario: Any = "single_stream",
    info: ModelInfo | None = None,
    batched: bool = True,
    audit: Any = "fail",
) -> Setup:
    """The fixed parts of a simulated study."""
    problem = Problem(
        name="simulated",
        path=work / "spec.yaml",
        model=work / "model.onnx",
        data=DataSpec(work / "valid.npz", batched=batched),
        metric=MetricSpec("accuracy"),
        budget=budget,
        objective=objective,
        traffic=Traffic(scenario, 100.0 if scenario == "server" else None),
        target=TargetSpec(),
        space=work / "space.yaml",
        search=search or SearchSpec(trials=12, timeout_s=600.0),
        version=None,
        rationale="",
        raw={},
        audit=audit,
    )
    splits = Splits(split(batched=batched), split("test", 300, batched=batched), split("calibration"), None, (), "d")
    return Setup(
        problem=problem,
        target=TARGET,
        info=info or info_of(),
        model=artifact_of(Recipe()),
        splits=splits,
        metric=Metric("accuracy", True, lambda outputs, labels, options: 0.0, ""),
        space=space,
        work=work,
        limits=ChildLimits(600.0),
        batching=True,
    )


def artifact_of(recipe: Recipe) -> Artifact:
    """What ``recipe`` builds."""
    path = Path(f"{recipe.digest}.onnx")
    return Artifact(path, (path,), 1000 - len(recipe.steps), recipe.digest)


@dataclass
class Facts:
    """The truth about one variant."""

    ratio: float = 0.5
    drop: float = 0.0
    drop_later: float | None = None
    noise: float = 0.01
    failure: Failure | None = None
    failure_later: Failure | None = None
    too_large: bool = False  # turned away once it is built: it is never run


World = Callable[[Variant], Facts]


def random_world(seed: int) -> World:
    """Figures that follow from the variant's own digest: some fit, some don't, some fail."""

    def facts(variant: Variant) -> Facts:
        if not variant.recipe.steps:
            return Facts(1.0, noise=0.0)
        raw = hashlib.sha256(f"{seed} {variant.id}".encode()).digest()
        failures = {0: Failure.CRASH, 1: Failure.UNSUPPORTED, 2: Failure.OOM}
        return Facts(
            ratio=0.3 + raw[0] / 512,
            drop=raw[1] / 255 * 0.02,
            drop_later=raw[2] / 255 * 0.02,
            noise=raw[3] / 255 * 0.1,
            failure=failures.get(raw[4] % 12),
            failure_later=Failure.TIMEOUT if raw[5] % 12 == 0 else None,
        )

    return facts


@dataclass
class FakeEvaluator:
    """Answers with the world's figures; remembers what it was asked to measure."""

    setup: Setup
    observer: Any
    world: World
    asked: list[tuple[str, bool]] = field(default_factory=list)  # variant, whether to verify it
    compared: list[tuple[str, str]] = field(default_factory=list)
    comparing_noise: float = 0.005  # half the interval of a direct comparison
    costed: list[str] = field(default_factory=list)  # variants whose operators were timed
    allowance: Allowance = field(default_factory=lambda: Allowance(ChildLimits(600.0)))
    control: Control | None = None
    on_event: Callable[[], None] = lambda: None
    baseline_samples: str = "0"
    sampler: Any = None

    def learns(self, sampler: Any) -> Any:
        """Remember the study's sampler, and give it back."""
        self.sampler = sampler
        return sampler

    @property
    def told(self) -> list[Any]:
        """The trials as Optuna has them, but for those that are still queued."""
        return [t for t in self.sampler.trials if t.state is not TrialState.WAITING]

    def __post_init__(self) -> None:
        self.reference = self.baseline = Outcome(self.setup.given, self.setup.model)

    def __enter__(self) -> FakeEvaluator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def build(self, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        seconds["build"] = 0.1
        return artifact_of(recipe)

    def measure_baseline(self) -> Outcome:
        self.on_event()
        return self._measure_baseline()

    def adopt(self, variant: Variant, artifact: Artifact) -> Outcome:
        self.baseline = self.reference if variant.id == self.reference.variant.id else Outcome(variant, artifact)
        return self._measure_baseline()

    def _measure_baseline(self) -> Outcome:
        self.baseline.measured |= figures(self.world(self.baseline.variant), later=False)
        self.baseline.profile = profile_of(self.baseline.variant)
        self.baseline.stage = Stage.QUALITY
        self.baseline.seconds |= {"evaluate": 0.1, "profile": 0.1}
        return self.baseline

    def expected_s(self) -> dict[Screen, float]:
        return {Screen.QUALITY: 0.1, Screen.LATENCY: 0.1}

    def measure(
        self,
        variant: Variant,
        artifact: Artifact,
        effort: Effort = SCREENING,
        *,
        give_up: Any = lambda measured: None,
        order: Any = (),
    ) -> Outcome:
        later = effort is VERIFYING
        self.asked.append((variant.id, later))
        self.on_event()
        facts = self.world(variant)
        if facts.too_large and not later:
            size = {"size_mb": Measurement.exact("size_mb", 9.0, "fake")}
            return Outcome(variant, artifact, size, cut_short="certain violation of size_mb")
        failure = facts.failure_later if later else facts.failure
        if failure is not None:
            raise VariantFailed(failure, "simulated.")
        outcome = Outcome(variant, artifact, figures(facts, later=later), profile_of(variant), Stage.QUALITY)
        outcome.broken = self.setup.problem.budget.broken(outcome.measured)
        if outcome.broken and effort.ends_early:
            outcome.cut_short = "simulated violation"
        return outcome

    def baseline_beside(self, outcome: Outcome) -> Outcome:
        return replace(self.baseline)

    def compare(self, a: Outcome, b: Outcome, *, q: float | None, cap_s: float) -> Comparison:
        self.compared.append((a.variant.id, b.variant.id))
        first, second = (self.world(outcome.variant) for outcome in (a, b))
        ratio, half = first.ratio / second.ratio, self.comparing_noise
        return Comparison(Interval(ratio, ratio - half, ratio + half), (100, 100), 4, 1.0)

    def take_costs(self, outcome: Outcome) -> None:
        self.costed.append(outcome.variant.id)

    def verdict(self, outcome: Outcome) -> Verdict:
        return self.setup.problem.budget.judge(outcome.measured)


def timetable(*, late: bool = False) -> Timetable:
    """One with time for everything, or for nothing more."""
    return Timetable(lambda record: 1.0, -1.0 if late else math.inf, late_s=math.inf, clock=lambda: 0.0)


def figures(facts: Facts, *, later: bool) -> dict[str, Measurement]:
    """Measurements of a variant of which ``facts`` hold."""
    drop = facts.drop_later if later and facts.drop_later is not None else facts.drop
    ratio = Interval(facts.ratio, facts.ratio - facts.noise, facts.ratio + facts.noise)
    return {
        "latency_p50_ms": Measurement("latency_p50_ms", facts.ratio, ratio.low, ratio.high, 99, "fake", ratio),
        "quality_drop": Measurement("quality_drop", drop, drop - 0.001, drop + 0.001, 600, "fake"),
    }


def reading(latency_ms: float = 1.0, n: int = 400, blocks: int = 20, *, batch: int = 1) -> LatencyReading:
    """Timed requests around ``latency_ms``."""
    values = latency_ms / 1e3 * (1 + 0.01 * np.random.default_rng(0).standard_normal(n))
    block = np.repeat(np.arange(blocks, dtype=np.int32), n // blocks)
    walls = np.bincount(block, weights=values)
    return LatencyReading(values, block, walls, walls, batch)


def profile_of(variant: Variant) -> Profile:
    """A profile with timed requests, so that samples are kept."""
    return Profile(variant.id, latency=reading(), baseline_latency=reading())


class Recorder(NullObserver):
    """Remembers notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def finished(
    number: int, variant: Variant, measured: Mapping[str, Measurement], verdict: Verdict, **more: Any
) -> TrialRecord:
    """The record of a trial that was measured to the end."""
    return TrialRecord(
        variant.id,
        number,
        RecordState.COMPLETE,
        None,
        "",
        "quality",
        variant,
        measured=measured,
        verdict=verdict,
        artifact=artifact_of(variant.recipe),
        **more,
    )
