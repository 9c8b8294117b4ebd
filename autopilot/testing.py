"""Fakes for tests: measurements, trials, results, and a session that is no model.

For the tests of this package and of plug-ins: nothing in here runs a model, touches the network or
needs a library beyond numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from autopilot.artifact import Artifact
from autopilot.budget import Budget, Limit
from autopilot.contracts import Array, Feed, ProviderFacts, Session
from autopilot.domain import Choice, Domain
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.profile import Interval, Measurement, OperatorCost, Placement
from autopilot.providers._ort import with_defaults
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import Candidate, Status, StudyResult, TrialRecord, TrialState
from autopilot.target import Target

FAKE_BUDGET = Budget((Limit("latency_p50_ms", 0.7, relative=True), Limit("quality_drop", 0.02), Limit("size_mb", 5.0)))


def fake_measurement(
    axis: str, value: float, *, spread: float = 0.02, n: int = 512, baseline: float | None = None
) -> Measurement:
    """A measurement with bounds ``spread`` (a share of the value) to both sides.

    >>> fake_measurement("latency_p50_ms", 2.0, baseline=4.0).ratio.value
    0.5
    """
    around = abs(value) * spread
    ratio = None
    if baseline:
        r = value / baseline
        ratio = Interval(r, r * (1 - spread), r * (1 + spread))
    return Measurement(axis, value, value - around, value + around, n, "fake", ratio)


def fake_variant(technique: str | None = None, *, threads: int = 1, **params: Any) -> Variant:
    """A variant of one technique (none: the model as given) on the CPU provider."""
    steps = (Step(technique, params_of(params)),) if technique else ()
    options = params_of({"graph_optimization": "all", "spinning": False})
    return Variant(Recipe(steps), Deployment("cpu", threads, 1, options))


def fake_measured(
    *, latency_ms: float, drop: float = 0.0, size_mb: float = 2.0, baseline_ms: float = 1.0
) -> dict[str, Measurement]:
    """What a whole trial measures, around the figures given."""
    return {
        "latency_p50_ms": fake_measurement("latency_p50_ms", latency_ms, baseline=baseline_ms),
        "quality_drop": Measurement("quality_drop", drop, drop - 0.004, drop + 0.004, 600, "paired"),
        "size_mb": Measurement.exact("size_mb", size_mb, "file size"),
        "energy_mj": Measurement.missing("energy_mj", "this machine has no energy counter"),
    }


def fake_trial(number: int, variant: Variant, measured: Mapping[str, Measurement] | None = None) -> TrialRecord:
    """A complete trial, judged against ``FAKE_BUDGET``; failed as ``build_error`` when nothing was measured."""
    common: dict[str, Any] = {"id": variant.id, "number": number, "variant": variant}
    if measured is None:
        return TrialRecord(
            **common,
            state=TrialState.FAILED,
            failure=Failure.BUILD_ERROR,
            reason="the quantizer raised",
            stage="build",
            seconds={"build": 0.25},
            log="Traceback: boom",
        )
    return TrialRecord(
        **common,
        state=TrialState.COMPLETE,
        failure=None,
        reason="",
        stage="verify",
        measured=measured,
        verdict=FAKE_BUDGET.judge(measured),
        seconds={"build": 0.5, "evaluate": 0.25, "profile": 1.5},
    )


def fake_candidate(trial: TrialRecord, *, artifact: Artifact | None = None) -> Candidate:
    """A complete trial as the candidate a result speaks about."""
    ratio = trial.measured["latency_p50_ms"].ratio
    return Candidate(
        id=trial.id,
        recipe=trial.variant.recipe,
        deployment=trial.variant.deployment,
        artifact=str(artifact.path) if artifact else "model.onnx",
        sha256=artifact.sha256 if artifact else "0" * 64,
        measured=trial.measured,
        verdict=trial.verdict,
        speedup=Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low) if ratio else None,
        number=trial.number,
    )


def fake_result(
    status: Status = Status.IN_BUDGET, *, name: str = "fake-study", artifact: Artifact | None = None
) -> StudyResult:
    """A small finished study: the baseline, a quantized variant and one that failed to build."""
    baseline = fake_trial(0, fake_variant(), fake_measured(latency_ms=1.0))
    latency = {Status.IN_BUDGET: 0.4, Status.UNDECIDED: 0.7, Status.NO_FIT: 0.9}[status]
    fast = fake_trial(
        1, fake_variant("static_int8", per_channel=True), fake_measured(latency_ms=latency, size_mb=0.6, drop=0.001)
    )
    broken = fake_trial(2, fake_variant("float16"))
    chosen = fake_candidate(fast, artifact=artifact)
    in_budget = status is Status.IN_BUDGET
    return StudyResult(
        status=status,
        name=name,
        objective="latency_p50_ms",
        baseline=fake_candidate(baseline, artifact=artifact),
        best=chosen if in_budget else None,
        nearest=None if in_budget else chosen,
        pareto=(baseline.id, fast.id),
        trials=(baseline, fast, broken),
        explanation="latency bound the search",
        budget=FAKE_BUDGET,
        environment={"machine": "fake", "cores": 2, "onnxruntime": "1.0"},
        elapsed_s=12.5,
        budget_version=3,
        rationale="a fake",
    )


@dataclass(frozen=True)
class FakeSession:
    """Answers with what ``compute`` makes of the feed; remembers nothing, loads nothing."""

    compute: Callable[[Feed], Sequence[Array]]
    output_names: tuple[str, ...] = ("output",)

    def run(self, feed: Feed) -> list[Array]:
        return list(self.compute(feed))

    def placement(self) -> Placement:
        return Placement({"FakeExecutionProvider": 1})

    def operator_costs(self, requests: int) -> tuple[OperatorCost, ...]:
        return (OperatorCost("Fake", "FakeExecutionProvider", "float32", 1.0, 1e-6),)


@dataclass(frozen=True)
class FakeProvider:
    """A provider that is there, or not for ``reason``; it answers with ``session`` and reads no file.

    >>> FakeProvider(reason="no driver; run install-driver").usable(Target.detect())
    'no driver; run install-driver'
    """

    name: str = "fake"
    reason: str | None = None
    session: Session = field(default_factory=lambda: FakeSession(double))
    parameters: Mapping[str, Domain] = field(default_factory=lambda: {"level": Choice(("high", "low"))})
    thread_choices: bool = False
    execution_provider: str = "FakeExecutionProvider"
    facts: ProviderFacts = field(
        default_factory=lambda: ProviderFacts(numerics=("level",), unaudited="the fake runs nothing")
    )

    def usable(self, target: Target) -> str | None:
        return self.reason

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> Session:
        if self.reason is not None:
            raise VariantFailed(Failure.PROVIDER_MISSING, self.reason)
        with_defaults(dict(deployment.options), self.parameters)
        if profile_to is not None:
            raise Unsupported("the fake provider has no profiler.")
        return self.session


@dataclass(frozen=True)
class FailingSession:
    """A session whose every run fails, as a crashed provider would."""

    failure: Failure = Failure.CRASH
    output_names: tuple[str, ...] = ("output",)

    def run(self, feed: Feed) -> list[Array]:
        raise VariantFailed(self.failure, "the fake session fails on purpose.")

    def placement(self) -> Placement:
        return Placement()

    def operator_costs(self, requests: int) -> tuple[OperatorCost, ...]:
        raise Unsupported("the fake session has no profiler.")


def double(feed: Feed) -> list[Array]:
    """Twice the first input: the simplest model."""
    return [2 * np.asarray(next(iter(feed.values())))]


def unbounded(result: StudyResult) -> StudyResult:
    """``result`` with a trial whose interval has no upper bound (too few samples for a p99)."""
    first = result.trials[0]
    open_ended = Measurement("latency_p99_ms", 3.0, 2.5, float("inf"), 40, "order statistics")
    changed = replace(first, measured={**first.measured, "latency_p99_ms": open_ended})
    return replace(result, trials=(changed, *result.trials[1:]))
