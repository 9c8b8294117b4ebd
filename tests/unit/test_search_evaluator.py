"""Measuring one variant, with servers and children that are no processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autopilot.bench import rounds
from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import ColdReading
from autopilot.bench.live import Server
from autopilot.budget import Budget, Judgement, Limit
from autopilot.contracts import Stage
from autopilot.errors import BaselineFailed, DataError, Failure, ModelError, NotMeasurable, Unsupported, VariantFailed
from autopilot.observer import NullObserver
from autopilot.profile import (
    Control,
    EnergyReading,
    Int8Audit,
    Interval,
    LatencyReading,
    Measurement,
    OperatorCost,
    OperatorTable,
    Placement,
    QualityReading,
)
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.search import cold, costs, energy, scored, timing
from autopilot.search import evaluator as module
from autopilot.search.allowance import GRACE_S
from autopilot.search.evaluator import Evaluator
from autopilot.search.outcome import VERIFYING, Outcome
from autopilot.search.summary import with_ratio
from tests.unit.search_support import artifact_of, reading, setup_of

WANTED = Variant(Recipe((Step("int8", params_of({"kind": "a"})),)), Deployment("cpu", 1, 1, params_of({"arena": True})))


class FakeServer:
    """A server that is alive until it is closed or killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.request_s: float | None = None
        self.warnings: tuple[str, ...] = ()
        self.pid = 1

    def warm_up(self) -> None:
        self.request_s = 0.001

    def close(self) -> None:
        self.is_alive = False

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bench:
    """What the fake launcher was asked, and what it answers."""

    def __init__(self) -> None:
        self.servers: list[FakeServer] = []
        self.latency_ms = 0.5
        self.drop = Interval(0.001, -0.001, 0.003)
        self.caps: list[float] = []
        self.cold_starts: list[int] = []
        self.limits: list[ChildLimits] = []
        self.scored: list[tuple[str, str]] = []
        self.latency_error: list[VariantFailed] = []
        self.score_error: Exception | None = None
        self.baseline_score_error: Exception | None = None
        self.audit: Int8Audit | None = None
        self.scored_n: int | None = None
        self.kill_baseline = False
        self.spoilt: list[tuple[LatencyReading, LatencyReading]] = []
        self.costs: tuple[OperatorCost, ...] = ()
        self.timed: list[str] = []

    def start(self, artifact: Path, deployment: Deployment, *, split: Any, limits: ChildLimits) -> FakeServer:
        self.limits.append(limits)
        self.servers.append(FakeServer(f"{artifact.stem[:6]} {split.name}"))
        return self.servers[-1]

    def measure_latency(self, candidate: FakeServer, other: FakeServer | None, *, decided: Any, cap_s: float) -> Any:
        assert candidate.is_alive
        assert other is None or other.is_alive
        self.caps.append(cap_s)
        if self.latency_error:
            if self.kill_baseline and other is not None:
                other.close()
            raise self.latency_error.pop()
        if self.spoilt:
            return self.spoilt.pop(0)
        mine = reading(self.latency_ms if other is not None else 1.0)
        return mine, reading(1.0) if other is not None else None

    def measure_cold(self, path: Path, deployment: Deployment, *, repeats: int, **_: Any) -> ColdReading:
        self.cold_starts.append(repeats)
        load_s = np.linspace(0.1, 0.11, repeats)
        return ColdReading(load_s, 50_000_000, Placement({"CPUExecutionProvider": 3}), ())

    def measure_operators(self, path: Path, deployment: Deployment, **more: Any) -> OperatorTable:
        self.timed.append(more["split"].name)
        if not self.costs:
            raise Unsupported("the provider has no profiler.")
        return OperatorTable(self.costs, 50, 1, more["latency_s"])

    def run_quality(self, outcome: Any, split: Any, *, limits: Any, early: bool) -> Any:
        is_baseline = not outcome.variant.recipe.steps
        self.scored.append(("baseline" if is_baseline else "variant", split.name))
        error = self.baseline_score_error if is_baseline else self.score_error
        if error is not None:
            raise error
        n = self.scored_n if self.scored_n and not is_baseline else split.n
        score = Interval(0.9, 0.88, 0.92)
        drop = Interval(0.0, 0.0, 0.0) if is_baseline else self.drop
        return QualityReading("accuracy", split.name, n, score, 0.9, drop, "fake"), None if is_baseline else self.audit


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    fake = Bench()
    monkeypatch.setattr(Server, "start", fake.start)
    monkeypatch.setattr(rounds, "measure_latency", fake.measure_latency)
    monkeypatch.setattr(timing, "measure_control", lambda live, start, *, pair_s: Control(0.002, 4, 0.3, 2.0))
    monkeypatch.setattr(cold, "measure_cold", fake.measure_cold)
    monkeypatch.setattr(cold, "measure_empty", lambda deployment, limits, *, split: 20_000_000)
    monkeypatch.setattr(module, "blamed", lambda exc, given, observer: None)
    monkeypatch.setattr(scored.QualityPass, "run", lambda self, *a, **k: fake.run_quality(*a, **k))
    return fake


def begun(folder: Path, **changes: Any) -> Evaluator:
    """An evaluator that has measured its baseline."""
    evaluator = Evaluator(setup_of(folder, **changes), NullObserver())
    evaluator.measure_baseline()
    return evaluator


def test_measure_goes_through_all_stages_and_judges_relative_limits(tmp_path: Path, bench: Bench) -> None:
    """Half the baseline's latency keeps a limit of 60% of baseline."""
    evaluator = begun(tmp_path)
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert outcome.stage is Stage.QUALITY
    assert not outcome.cut_short
    assert evaluator.verdict(outcome).per_limit == {"latency_p50_ms": Judgement.IN, "quality_drop": Judgement.IN}
    assert [s.name.split()[1] for s in bench.servers] == ["validation", "validation"]


def test_every_size_is_met_in_the_cold_pass_of_server_traffic(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is that of the process which serves, not of one that was asked for one size alone."""
    opened: list[dict[str, Any]] = []
    server: Any = SimpleNamespace(deployment=WANTED.deployment, open_traffic=lambda **told: opened.append(told))
    usual = bench.measure_cold

    def measure_cold(path: Path, deployment: Deployment, *, ready: Any, **more: Any) -> ColdReading:
        if ready is not None:
            ready(server)
        return usual(path, deployment, **more)

    monkeypatch.setattr(cold, "measure_cold", measure_cold)
    limit = Budget((Limit("peak_memory_mb", 100.0),))
    for scenario, expected in (("single_stream", []), ("server", [True])):
        setup = setup_of(tmp_path, scenario=scenario, budget=limit)
        passes = Evaluator(setup, NullObserver())._passes
        passes.cold(Outcome(WANTED, artifact_of(WANTED.recipe)))
        assert [told["for_memory"] for told in opened] == expected


def test_measure_stops_at_the_first_certain_violation(tmp_path: Path, bench: Bench) -> None:
    """Too slow for certain: no samples are scored."""
    evaluator = begun(tmp_path)
    bench.latency_ms = 0.9
    bench.scored.clear()
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert outcome.stage is Stage.LATENCY
    assert "latency_p50_ms" in outcome.cut_short
    assert bench.scored == []
    assert evaluator.verdict(outcome).overall is Judgement.OUT


def test_size_limit_relative_to_the_baseline_is_judged_before_anything_runs(tmp_path: Path, bench: Bench) -> None:
    """Sizes are exact: their ratio needs no interleaving, and no process."""
    evaluator = begun(tmp_path, budget=Budget((Limit("size_mb", 0.5, relative=True),)))
    bench.cold_starts.clear()
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert outcome.stage is Stage.BUILD
    assert bench.cold_starts == []
    assert "size_mb" in outcome.cut_short


def test_verification_takes_everything_on_held_back_data_with_fresh_servers(tmp_path: Path, bench: Bench) -> None:
    """A violation doesn't end it, and the baseline is started again beside it."""
    evaluator = begun(tmp_path)
    bench.latency_ms = 0.9
    bench.scored.clear()
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe), VERIFYING)

    assert outcome.stage is Stage.QUALITY
    assert [s.name.split()[1] for s in bench.servers] == ["validation", *["test"] * 40]
    assert not bench.servers[0].is_alive
    assert outcome.profile is not None
    assert outcome.profile.latency is not None
    assert outcome.profile.latency.processes == 20
    assert bench.scored == [("baseline", "test"), ("variant", "test")]
    beside = evaluator.baseline_beside(outcome)
    assert beside.measured["latency_p50_ms"].ratio == Interval(1.0, 1.0, 1.0)
    assert beside.measured["quality"].how.startswith("accuracy on test")


def swinging() -> tuple[LatencyReading, LatencyReading]:
    """Readings whose ratio doubles half-way."""
    beside = reading(1.0)
    return replace(beside, latency_s=beside.latency_s * np.where(beside.block < 10, 0.5, 1.0)), beside


def test_reading_that_the_machine_spoilt_is_taken_again(tmp_path: Path, bench: Bench) -> None:
    """The second one counts."""
    evaluator = begun(tmp_path)
    bench.spoilt = [swinging()]
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert outcome.stage is Stage.QUALITY
    assert len(bench.caps) == 3


def test_machine_that_spoils_two_readings_in_a_row_is_unstable(tmp_path: Path, bench: Bench) -> None:
    """No figure is better than a wrong one."""
    evaluator = begun(tmp_path)
    bench.spoilt = [swinging(), swinging()]

    with pytest.raises(VariantFailed, match="twice in a row") as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert caught.value.failure is Failure.UNSTABLE


def test_absolute_limit_is_measured_again_when_the_machine_moved(tmp_path: Path, bench: Bench) -> None:
    """Slower by more than the margin: once more, and what is kept then carries the drift."""
    evaluator = begun(tmp_path, budget=Budget((Limit("latency_p50_ms", 0.6, margin=0.05),)))
    slow = (reading(0.65), reading(1.3))
    bench.spoilt = [slow, slow]
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert len(bench.caps) == 3
    assert outcome.profile is not None
    assert outcome.profile.drift == pytest.approx(0.3)
    assert evaluator.verdict(outcome).overall is Judgement.UNDECIDED
    assert any("30% slower" in w for w in outcome.warnings)


def test_dead_baseline_server_is_started_again(tmp_path: Path, bench: Bench) -> None:
    """The kernel may take the idle server for its memory: the next variant is not to blame."""
    evaluator = begun(tmp_path)
    bench.servers[0].close()
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert outcome.stage is Stage.QUALITY
    assert [s.name for s in bench.servers].count(bench.servers[0].name) == 2


def test_baseline_server_that_dies_beside_a_variant_is_named_and_replaced(tmp_path: Path, bench: Bench) -> None:
    """Out of memory of the baseline's server is no verdict on the variant, which is tried again."""
    evaluator = begun(tmp_path)
    bench.latency_error = [VariantFailed(Failure.OOM, "killed")]
    bench.kill_baseline = True
    with pytest.raises(VariantFailed, match="baseline's server ended") as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert caught.value.failure is Failure.CRASH
    assert evaluator.measure(WANTED, artifact_of(WANTED.recipe)).stage is Stage.QUALITY


def test_variant_that_runs_out_of_memory_keeps_its_failure(tmp_path: Path, bench: Bench) -> None:
    """With the baseline alive the variant's own ending counts."""
    evaluator = begun(tmp_path)
    bench.latency_error = [VariantFailed(Failure.OOM, "killed")]

    with pytest.raises(VariantFailed) as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert caught.value.failure is Failure.OOM


def test_outputs_that_the_metric_refuses_fail_the_variant_alone(tmp_path: Path, bench: Bench) -> None:
    """A correlation of constant outputs is undefined: the study goes on."""
    evaluator = begun(tmp_path)
    bench.score_error = DataError("the metric pearson is undefined on these 600 samples.")

    with pytest.raises(VariantFailed, match="undefined") as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert caught.value.failure is Failure.WRONG_NUMERICS


def test_held_back_data_that_the_metric_refuses_are_bad_input(tmp_path: Path, bench: Bench) -> None:
    """The baseline is scored on them first, so that no finalist is blamed for its labels."""
    evaluator = begun(tmp_path)
    bench.baseline_score_error = bench.score_error = DataError("one class only.")

    with pytest.raises(DataError, match="one class only"):
        evaluator.measure(WANTED, artifact_of(WANTED.recipe), VERIFYING)


@pytest.mark.parametrize(("failure", "expected"), [(Failure.WRONG_NUMERICS, ModelError), (Failure.OOM, BaselineFailed)])
def test_baseline_that_fails_ends_the_study(
    tmp_path: Path, bench: Bench, failure: Failure, expected: type[Exception]
) -> None:
    """A model that is at fault is bad input; a machine that is, isn't."""
    bench.baseline_score_error = VariantFailed(failure, "no.")

    with pytest.raises(expected, match="can't be measured"):
        begun(tmp_path)


def test_fake_int8_fails(tmp_path: Path, bench: Bench) -> None:
    """What claims to be int8 and runs in float is no int8 variant."""
    evaluator = begun(tmp_path)
    bench.audit = Int8Audit(claimed=4, executed=1, total=4)

    with pytest.raises(VariantFailed) as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert caught.value.failure is Failure.FAKE_INT8


def fallen(bench: Bench, nodes: dict[str, int]) -> None:
    """Every later variant has its nodes so."""
    usual = bench.measure_cold

    def elsewhere(path: Path, deployment: Deployment, **more: Any) -> ColdReading:
        return replace(usual(path, deployment, **more), placement=Placement(nodes))

    bench.measure_cold = elsewhere  # type: ignore[method-assign]


FALLEN = {"CPUExecutionProvider": 3, "OtherExecutionProvider": 1}


@pytest.fixture
def falling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    fallen(bench, FALLEN)
    monkeypatch.setattr(cold, "measure_cold", bench.measure_cold)
    monkeypatch.setattr(costs, "measure_operators", bench.measure_operators)
    return bench


def test_nodes_on_another_provider_fail_the_variant(tmp_path: Path, falling: Bench) -> None:
    """With its share of nodes; before anything is timed."""
    evaluator = begun(tmp_path)
    falling.caps.clear()

    with pytest.raises(VariantFailed, match=r"1 of 4 nodes \(25.0%\) run on OtherExecutionProvider") as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert caught.value.failure is Failure.PROVIDER_FALLBACK
    assert "audit: warn" in caught.value.hint
    assert falling.caps == []


ELSEWHERE = (
    OperatorCost("Conv", "OtherExecutionProvider", "float32", 1.0, 0.0009),
    OperatorCost("Relu", "CPUExecutionProvider", "float32", 3.0, 0.0001),
)


def test_nodes_on_another_provider_are_told_by_node_and_by_time(tmp_path: Path, falling: Bench) -> None:
    """One of four nodes may take nine tenths of the time: a user has to know which."""
    evaluator = begun(tmp_path)
    falling.costs = ELSEWHERE

    with pytest.raises(
        VariantFailed, match=r"1 of 4 nodes \(25.0%, 90.0% of the time\) run on OtherExecutionProvider"
    ) as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert caught.value.failure is Failure.PROVIDER_FALLBACK


def test_operators_of_nodes_elsewhere_are_timed_once_where_the_audit_warns(tmp_path: Path, falling: Bench) -> None:
    """The warning has both shares; what was timed for it serves the table of operators too."""
    falling.costs = ELSEWHERE
    evaluator = begun(tmp_path, audit="warn")
    falling.timed.clear()
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))
    evaluator.take_costs(outcome)

    assert [w for w in outcome.warnings if "25.0%, 90.0% of the time" in w and w.startswith("provider_fallback: ")]
    assert falling.timed == ["validation"]
    assert outcome.profile is not None
    assert outcome.profile.operators is not None
    assert outcome.profile.operators.covered == pytest.approx(2.0, rel=0.1)  # 1 ms of operators in 0.5 ms
    assert outcome.measured["provider_time_share"].value == pytest.approx(0.1)


def test_baseline_with_nodes_on_another_provider_is_warned_about(tmp_path: Path, falling: Bench) -> None:
    """Without it there is nothing to compare with; as a finalist it is held to the rule like every other."""
    evaluator = begun(tmp_path)

    assert [w for w in evaluator.baseline.warnings if w.startswith("provider_fallback: ")]
    with pytest.raises(VariantFailed):
        evaluator.measure(evaluator.baseline.variant, artifact_of(Recipe()), VERIFYING)


def test_audit_warns_where_the_spec_says_so(tmp_path: Path, falling: Bench) -> None:
    """The variant is measured to the end and carries both warnings, once each."""
    evaluator = begun(tmp_path, audit="warn")
    falling.audit = Int8Audit(claimed=4, executed=1, total=4)
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert outcome.stage is Stage.QUALITY
    assert [w.partition(":")[0] for w in outcome.warnings] == ["provider_fallback", "fake_int8"]


def test_operators_are_timed_in_a_trial_only_where_their_share_is_judged(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on provider_time_share needs the figure of every variant; without one the pass waits for the end."""
    table = OperatorTable((OperatorCost("Conv", "CPUExecutionProvider", "float32", 1.0, 0.001),), 50)
    timed: list[str] = []

    def measure(path: Path, deployment: Deployment, **more: Any) -> OperatorTable:
        timed.append(more["split"].name)
        return table

    monkeypatch.setattr(costs, "measure_operators", measure)
    begun(tmp_path)
    assert timed == []
    limits = (Limit("provider_time_share", 0.9, upper=False), Limit("quality_drop", 0.01))
    evaluator = begun(tmp_path, budget=Budget(limits))
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert timed == ["validation", "validation"]
    assert evaluator.verdict(outcome).overall is Judgement.IN


def test_prefix_that_rules_a_variant_out_cuts_it_short(tmp_path: Path, bench: Bench) -> None:
    """The record says that not all samples were scored."""
    evaluator = begun(tmp_path)
    bench.scored_n = 512
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert "512 samples" in outcome.cut_short


def test_give_up_ends_a_trial_with_its_reason(tmp_path: Path, bench: Bench) -> None:
    """It is asked with what was measured so far; verification doesn't ask."""
    evaluator = begun(tmp_path)

    def hopeless(measured: Any) -> str | None:
        return "hopeless" if "latency_p50_ms" in measured else None

    screened = evaluator.measure(WANTED, artifact_of(WANTED.recipe), give_up=hopeless)
    assert (screened.stage, screened.cut_short) == (Stage.LATENCY, "hopeless")
    assert evaluator.verdict(screened).overall is Judgement.UNDECIDED


def test_children_get_less_time_as_the_study_ends(tmp_path: Path, bench: Bench) -> None:
    """Each child may overrun the study's time by the grace, not each trial by all its children."""
    evaluator = begun(tmp_path)
    evaluator.measure(WANTED, artifact_of(WANTED.recipe))
    evaluator.allowance.deadline = time.monotonic() - 10.0
    evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert [limits.wall_s for limits in bench.limits] == [600.0, 600.0, GRACE_S]


def test_trial_ends_between_passes_once_its_study_is_late(tmp_path: Path, bench: Bench) -> None:
    """One child may overrun the study's time, and then no other is started; finalists are another matter."""
    evaluator = begun(tmp_path)
    bench.cold_starts.clear()
    evaluator.allowance.deadline = time.monotonic() - GRACE_S - 1.0
    with pytest.raises(VariantFailed, match="time was up") as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert caught.value.failure is Failure.TIMEOUT
    assert bench.cold_starts == []
    assert evaluator.measure(WANTED, artifact_of(WANTED.recipe), VERIFYING).stage is Stage.QUALITY


@pytest.mark.parametrize("in_score", [False, True])
def test_failure_carries_the_seconds_that_were_spent(tmp_path: Path, bench: Bench, in_score: bool) -> None:
    """Stage by stage, the one that failed included."""
    evaluator = begun(tmp_path)
    if in_score:
        bench.score_error = DataError("undefined.")
    else:
        bench.latency_error = [VariantFailed(Failure.OOM, "killed")]
    with pytest.raises(VariantFailed) as caught:
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert list(caught.value.seconds) == ["load", "profile", *(["evaluate"] if in_score else [])]


def test_start_time_is_taken_several_times_where_it_is_judged(tmp_path: Path, bench: Bench) -> None:
    """One start has no interval."""
    begun(tmp_path)
    begun(tmp_path, budget=Budget((Limit("load_s", 1.0),)))

    assert bench.cold_starts == [1, 5]


def test_baseline_is_measured_whole_though_it_breaks_a_limit(tmp_path: Path, bench: Bench) -> None:
    """It is what everything is compared with."""
    evaluator = begun(tmp_path, budget=Budget((Limit("size_mb", 0.0001), Limit("latency_p50_ms", 0.001))))

    assert evaluator.baseline.stage is Stage.QUALITY
    assert evaluator.verdict(evaluator.baseline).overall is Judgement.OUT


@pytest.mark.parametrize(
    ("mine", "base", "expected"),
    [
        ((5.0, 5.0, 5.0), (10.0, 10.0, 10.0), (0.5, 0.5, 0.5)),
        ((5.0, 4.0, 6.0), (10.0, 8.0, 12.0), (0.5, 4 / 12, 6 / 8)),
        ((5.0, 4.0, 6.0), (10.0, 0.0, 12.0), (0.5, 4 / 12, float("inf"))),
        ((5.0, 4.0, 6.0), (0.0, 0.0, 0.0), None),
    ],
)
def test_ratio_without_interleaving_takes_the_unlucky_sides(
    mine: tuple[float, float, float], base: tuple[float, float, float], expected: tuple[float, float, float] | None
) -> None:
    """Both intervals widen the ratio; without a positive baseline there is none, so nothing is in."""
    found = with_ratio(Measurement("load_s", *mine, 5), {"load_s": Measurement("load_s", *base, 5)})

    assert (found.ratio is None) == (expected is None)
    if found.ratio is not None and expected is not None:
        assert (found.ratio.value, found.ratio.low, found.ratio.high) == pytest.approx(expected)
    else:
        assert Limit("load_s", 0.9, relative=True).judge(found) is Judgement.NOT_MEASURABLE


# ---- energy ----------------------------------------------------------------------------------------


def with_counter(folder: Path, source: str | None, **changes: Any) -> Evaluator:
    """An evaluator on a machine with (or without) an energy counter, its baseline measured."""
    reason = "" if source else "no RAPL counter"
    setup = setup_of(folder, **changes)
    target = replace(setup.target, energy_source=source, energy_reason=reason)
    evaluator = Evaluator(replace(setup, target=target), NullObserver())
    evaluator.measure_baseline()
    return evaluator


@pytest.fixture
def energy_pass(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Servers whose energy was read (5 mJ a sample above idle), and whether that, and a noisier one, decided."""
    read: list[str] = []
    one = np.ones(12)

    def measure(server: FakeServer, counter: Any, *, decided: Any) -> EnergyReading:
        assert server.request_s is not None  # warm
        found = EnergyReading(25e3 * one, one, 20e3 * one, one, 1000 * one, "rapl", "packages", 0.001)
        noisy = replace(found, busy_mj=25e3 * one + 10e3 * np.cos(np.pi * np.arange(12)))
        read.append(f"{server.name}: {decided(found)}, {decided(noisy)} when noisy")
        return found

    monkeypatch.setattr(energy, "open_counter", lambda pid, placement: object())
    monkeypatch.setattr(energy, "measure_energy", measure)
    return read


ENERGY = Budget((Limit("energy_mj", 6.0),))


def test_energy_is_read_of_every_variant_where_the_spec_names_it(
    tmp_path: Path, bench: Bench, energy_pass: list[str]
) -> None:
    """Baseline and variant, each in a process of its own that is ended again."""
    evaluator = with_counter(tmp_path, "rapl", budget=ENERGY)
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert len(energy_pass) == 2
    assert outcome.measured["energy_mj"].value == pytest.approx(5.0)
    assert evaluator.verdict(outcome).per_limit == {"energy_mj": Judgement.IN}
    assert sum(server.is_alive for server in bench.servers) == 1  # the baseline's, between trials


def test_energy_of_finalists_alone_is_read_where_the_spec_does_not_name_it(
    tmp_path: Path, bench: Bench, energy_pass: list[str]
) -> None:
    """Screening doesn't pay for it; the table of the winner has it all the same."""
    evaluator = with_counter(tmp_path, "rapl")
    screened = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert energy_pass == []
    assert "finalists only" in screened.measured["energy_mj"].reason

    verified = evaluator.measure(WANTED, artifact_of(WANTED.recipe), VERIFYING)

    assert verified.measured["energy_mj"].value == pytest.approx(5.0)


@pytest.mark.parametrize(("limit", "when_noisy"), [(6.0, False), (50.0, True)])
def test_energy_is_read_on_while_its_limit_is_undecided(
    limit: float, when_noisy: bool, tmp_path: Path, bench: Bench, energy_pass: list[str]
) -> None:
    """5 mJ, give or take some 7: too noisy for a limit of 6 mJ, not for one of 50."""
    evaluator = with_counter(tmp_path, "rapl", budget=Budget((Limit("energy_mj", limit),)))
    evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert energy_pass[-1].endswith(f": True, {when_noisy} when noisy")


def test_machine_without_counter_starts_no_process_for_it(tmp_path: Path, bench: Bench, energy_pass: list[str]) -> None:
    """The reason is the machine's; no seconds are spent."""
    outcome = with_counter(tmp_path, None, budget=ENERGY).measure(WANTED, artifact_of(WANTED.recipe))

    assert energy_pass == []
    assert outcome.measured["energy_mj"].reason == "no RAPL counter"


def test_counter_that_fails_in_the_pass_is_a_reason(
    tmp_path: Path, bench: Bench, energy_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that stops leaves the axis without a figure, and the trial goes on."""

    def fails(pid: int, placement: Placement) -> object:
        raise NotMeasurable("the counter stood still.")

    monkeypatch.setattr(energy, "open_counter", fails)
    outcome = with_counter(tmp_path, "rapl", budget=ENERGY).measure(WANTED, artifact_of(WANTED.recipe))

    assert outcome.measured["energy_mj"].reason == "the counter stood still."
    assert outcome.stage is Stage.QUALITY


def test_build_from_the_cache_tells_what_it_once_cost(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment that taking it takes is no price: what was saved stands beside it, summed over the steps."""

    def build(recipe: Recipe, model: Any, *, reused: Any, **_: Any) -> Any:
        reused(2.5)
        reused(0.5)
        return artifact_of(recipe)

    monkeypatch.setattr(module, "build", build)
    seconds: dict[str, float] = {}
    with Evaluator(setup_of(tmp_path), NullObserver()) as evaluator:
        evaluator.build(WANTED.recipe, seconds)

    assert seconds["build_saved"] == 3.0
    assert 0 <= seconds["build"] < 2.5
