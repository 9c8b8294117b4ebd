"""Meters turn readings into figures: checked against figures worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autopilot.meters import cost, cpu, energy, latency, load, memory, placement, size, throughput
from autopilot.profile import (
    Control,
    EnergyReading,
    Int8Audit,
    LatencyReading,
    OperatorCost,
    OperatorTable,
    Placement,
    Profile,
)


def reading(request_s: float, *, blocks: int = 20, size: int = 40, batch: int = 1, seed: int = 0) -> LatencyReading:
    """Requests of about ``request_s`` with a tenth of spread, one core and a half busy."""
    values = request_s * np.random.default_rng(seed).uniform(0.9, 1.1, (blocks, size))
    walls = values.sum(axis=1)
    block = np.repeat(np.arange(blocks, dtype=np.int32), size)
    return LatencyReading(values.ravel(), block, walls, 1.5 * walls, batch)


PROFILE = Profile("v", latency=reading(0.002), baseline_latency=reading(0.004, size=20, seed=1))


def test_latency_reads_percentiles_in_milliseconds() -> None:
    """p50 and p95 of a uniform spread around 2 ms are what numpy says, n is the number of requests."""
    for name, q in (("latency_p50_ms", 50), ("latency_p95_ms", 95)):
        found = latency.METER.summarise(PROFILE, name)
        assert found.value == pytest.approx(1e3 * np.percentile(PROFILE.latency.latency_s, q))  # type: ignore[union-attr]
        assert found.n == 800
        assert found.low < found.value < found.high  # type: ignore[operator]


def test_latency_ratio_comes_from_the_interleaved_baseline() -> None:
    """Half of the baseline's latency, within a tenth."""
    found = latency.METER.summarise(PROFILE, "latency_p50_ms")

    assert found.ratio is not None
    assert found.ratio.low < 0.5 < found.ratio.high
    assert found.ratio.high - found.ratio.low < 0.05


def test_latency_says_what_an_upper_bound_needs_when_requests_are_too_few() -> None:
    """A p99 of 800 requests in blocks has a bound; of 80 it has none and says how many it takes."""
    found = latency.METER.summarise(Profile("v", latency=reading(0.002, size=4)), "latency_p99_ms")

    assert found.value is not None
    assert math.isinf(found.high or 0.0)
    assert "368" in found.how


@pytest.mark.parametrize("name", ["latency_p97.5_ms", "latency_p99.9_ms", "latency_p1_ms"])
def test_any_percentile_is_an_axis(name: str) -> None:
    """Percentiles are parameters, never files."""
    axis = latency.METER.axis(name)

    assert axis is not None
    assert axis.name == name
    assert not axis.higher_is_better


@pytest.mark.parametrize(
    "name", ["latency_p0_ms", "latency_p100_ms", "latency_p99", "latency_ms", "p99_ms", "latency_pxx_ms"]
)
def test_what_is_no_percentile_is_no_axis(name: str) -> None:
    """Nearly right names are refused, so that a spec with one is told so."""
    assert latency.METER.axis(name) is None


def test_throughput_counts_samples_not_requests() -> None:
    """Batches of 8 at 2 ms a request are 4,000 samples a second; its ratio to 250 a second is 16."""
    batched = replace(PROFILE, latency=reading(0.002, batch=8))
    found = throughput.METER.summarise(batched, "throughput_rps")

    assert found.value == pytest.approx(4000, rel=0.02)
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(16, rel=0.02)


def test_cpu_is_processor_time_a_sample() -> None:
    """One and a half busy cores for 2 ms a request of 4 samples are 0.75 ms a sample."""
    found = cpu.METER.summarise(replace(PROFILE, latency=reading(0.002, batch=4)), "cpu_ms")

    assert found.value == pytest.approx(0.75, rel=0.02)
    assert "1.50 cores" in found.how


def test_cpu_time_counts_all_threads() -> None:
    """Four busy threads for 2 ms a request are 8 ms of processor time a sample, whatever the wall clock says."""
    r = reading(0.002)
    found = cpu.METER.summarise(Profile("v", latency=replace(r, block_cpu_s=4 * r.block_wall_s)), "cpu_ms")

    assert found.value == pytest.approx(8.0, rel=0.02)
    assert "4.00 cores" in found.how


def test_cpu_ratio_is_a_sample_too_when_batches_differ() -> None:
    """Batches of 8 in 2 ms against single samples in 4 ms: one sixteenth of the processor time a sample."""
    found = cpu.METER.summarise(replace(PROFILE, latency=reading(0.002, batch=8)), "cpu_ms")

    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(1 / 16, rel=0.03)
    assert found.ratio.low <= found.ratio.value <= found.ratio.high


def test_memory_reports_the_whole_process_and_names_the_empty_one() -> None:
    """The figure is not less the empty server's; that one stands beside it."""
    found = memory.METER.summarise(
        Profile("v", peak_memory_bytes=80_000_000, empty_memory_bytes=50_500_000), "peak_memory_mb"
    )

    assert found.value == 80.0
    assert "50.5 MB" in found.how


def starts(*peaks_mb: float) -> Profile:
    """A variant whose fresh processes reached these high-water marks; 50 MB without a model."""
    told = tuple(round(p * 1e6) for p in peaks_mb)
    return Profile("v", peak_memory_bytes=max(told), peak_memory_starts_bytes=told, empty_memory_bytes=50_000_000)


def test_one_start_has_the_spread_that_other_models_showed() -> None:
    """A single process is no exact figure: half a MB, or half a percent of a large one; the text says so."""
    small = memory.METER.summarise(starts(80.0), "peak_memory_mb")
    large = memory.METER.summarise(starts(800.0), "peak_memory_mb")

    assert (small.low, small.high, small.n) == (79.5, 80.5, 1)
    assert (large.low, large.high) == (796.0, 804.0)
    assert "other models" in small.how


def test_three_starts_bound_a_further_one() -> None:
    """Student's prediction interval: 4.303 standard deviations times the root of 4/3 around the mean."""
    found = memory.METER.summarise(starts(79.0, 80.0, 81.0), "peak_memory_mb")

    assert (found.value, found.n) == (80.0, 3)
    assert found.high == pytest.approx(80 + 4.303 * math.sqrt(4 / 3), rel=1e-3)
    assert found.low == pytest.approx(80 - 4.303 * math.sqrt(4 / 3), rel=1e-3)


def test_bounds_hold_a_further_start_as_often_as_they_say() -> None:
    """Of 500 simulated variants about 95% start once more inside the bounds of their first three starts."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        *first, later = rng.normal(100, 1, 4)
        found = memory.METER.summarise(starts(*first), "peak_memory_mb")
        hits += found.low <= later <= found.high  # type: ignore[operator]

    assert 0.92 <= hits / 500 <= 0.98


def test_models_memory_is_what_the_empty_process_lacks() -> None:
    """80 MB less 50 MB; wider than either bound alone, since both starts vary."""
    found = memory.METER.summarise(starts(80.0), "model_memory_mb")

    assert found.value == 30.0
    assert found.high == pytest.approx(30 + math.hypot(0.5, 0.5))
    assert memory.METER.summarise(replace(starts(80.0), empty_memory_bytes=None), "model_memory_mb").value is None


def test_resident_memory_is_a_figure_of_its_own() -> None:
    """What a process keeps after loading is often half of its peak; where the system doesn't tell, a reason."""
    profile = replace(starts(464.0), resident_memory_bytes=265_000_000)

    assert memory.METER.summarise(profile, "resident_memory_mb").value == 265.0
    assert "doesn't tell" in memory.METER.summarise(starts(464.0), "resident_memory_mb").reason


def test_system_without_high_water_mark_is_the_reason() -> None:
    """The process was started and nobody told its peak: that isn't a trial that ended early."""
    started = memory.METER.summarise(Profile("v", load_s=np.array([0.2])), "peak_memory_mb")

    assert started.value is None
    assert "no high-water mark" in started.reason
    assert "ended before" in memory.METER.summarise(Profile("v"), "peak_memory_mb").reason


def test_missing_gpu_memory_keeps_the_drivers_reason() -> None:
    """What the cold pass was told is what the table shows."""
    profile = replace(starts(80.0), gpu_memory_reason="pynvml is not installed")

    assert memory.METER.summarise(profile, "gpu_memory_mb").reason == "pynvml is not installed"


def test_size_is_in_millions_of_bytes() -> None:
    """1 MB is 1,000,000 bytes."""
    assert size.METER.summarise(Profile("v", size_bytes=3_378_302), "size_mb").value == pytest.approx(3.378302)


def test_one_start_has_no_interval() -> None:
    """A single start is a number whose bounds are unknown; five give bounds."""
    one = load.METER.summarise(Profile("v", load_s=np.array([0.2])), "load_s")
    five = load.METER.summarise(Profile("v", load_s=np.array([0.2, 0.21, 0.19, 0.2, 0.22])), "load_s")

    assert (one.value, one.low, one.n) == (0.2, 0.0, 1)
    assert math.isinf(one.high or 0.0)
    assert five.value == pytest.approx(0.204)
    assert 0.15 < (five.low or 0.0) < 0.204 < (five.high or 9.0) < 0.25


def test_cost_follows_price_and_throughput() -> None:
    """0.36 an hour at 500 samples a second is 0.2 a million, and twice as fast is half the cost."""
    found = cost.METER.summarise(replace(PROFILE, price_per_hour=0.36), "cost_per_million")

    assert found.value == pytest.approx(0.2, rel=0.02)
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert found.ratio is not None
    assert found.ratio.low <= found.ratio.value <= found.ratio.high
    assert found.ratio.value == pytest.approx(0.5, rel=0.02)


def test_cost_is_a_sample_in_offline_traffic() -> None:
    """Batches of 8 make a sample an eighth as dear as single requests of the same length."""
    single = cost.METER.summarise(Profile("v", latency=reading(0.002), price_per_hour=0.36), "cost_per_million")
    batched = cost.METER.summarise(
        Profile("v", latency=reading(0.002, batch=8), price_per_hour=0.36), "cost_per_million"
    )

    assert batched.value == pytest.approx(single.value / 8)  # type: ignore[operator]
    assert "fully used" in batched.how


def test_cost_without_a_price_is_missing() -> None:
    """No price in the spec: the reason names the key to set."""
    found = cost.METER.summarise(PROFILE, "cost_per_million")

    assert found.value is None
    assert "price_per_hour" in found.reason


def test_energy_without_a_counter_gives_the_machines_reason() -> None:
    """Never latency times a constant."""
    found = energy.METER.summarise(replace(PROFILE, energy_reason="no RAPL counter"), "energy_mj")

    assert found.value is None
    assert found.reason == "no RAPL counter"


def test_energy_is_what_serving_adds_above_idle() -> None:
    """30 W busy less 10 W idle over 4 s is 80 J: 20 mJ for each of 4,000 samples."""
    one = np.ones(4)
    e = EnergyReading(30e3 * one, one, 20e3 * one, 2 * one, 1000 * one, "rapl", "the package", 0.001)
    found = energy.METER.summarise(Profile("v", energy=e), "energy_mj")

    assert found.value == pytest.approx(20.0)
    assert found.low == pytest.approx(20.0)
    assert found.n == 4000
    for said in ("rapl counter (the package)", "4000 counter updates", "idle power of 10.00 W subtracted"):
        assert said in found.how


def test_placement_is_the_share_on_the_provider_asked_for() -> None:
    """Three of four nodes, and the rest by name."""
    nodes = Placement({"CUDAExecutionProvider": 3, "CPUExecutionProvider": 1})
    profile = Profile("v", placement=nodes, environment={"execution_provider": "CUDAExecutionProvider"})
    found = placement.METER.summarise(profile, "provider_node_share")

    assert found.value == 0.75
    assert "1 nodes on CPUExecutionProvider" in found.how


def test_int8_share_counts_integer_kernels() -> None:
    """Of all products, not of those that claim to be int8."""
    found = placement.METER.summarise(Profile("v", int8=Int8Audit(claimed=6, executed=5, total=10)), "int8_node_share")

    assert found.value == 0.5


CONTROL = Control(spread=0.02, pairs=4, p50_percent=3.0, p99_percent=9.0)


@pytest.mark.parametrize(
    ("meter", "axis"),
    [(latency, "latency_p50_ms"), (latency, "latency_mean_ms"), (throughput, "throughput_rps"), (cpu, "cpu_ms")],
)
def test_timed_figures_carry_what_processes_differ_by(meter: Any, axis: str) -> None:
    """With 2% between processes a figure from one is no nearer than 2.8 times that; three processes help."""
    plain = meter.METER.summarise(PROFILE, axis)
    one = meter.METER.summarise(replace(PROFILE, control=CONTROL), axis)
    assert PROFILE.latency is not None
    third = replace(PROFILE.latency, block_process=np.arange(20, dtype=np.int32) % 3)
    three = meter.METER.summarise(replace(PROFILE, control=CONTROL, latency=third), axis)

    def width(found: Any) -> float:
        return math.log(found.high / found.low)

    assert plain.value == one.value == three.value
    assert width(plain) < width(three) < width(one)
    assert width(plain.ratio) < width(three.ratio) < width(one.ratio)
    assert width(one.ratio) > 2 * 2.77 * 0.02
    assert "between processes" in one.how


def test_absolute_figures_carry_drift_and_ratios_do_not() -> None:
    """Measured while the machine was 20% slower: what it would have been otherwise lies inside too."""
    slow = replace(PROFILE, drift=0.2)
    before, found = (latency.METER.summarise(p, "latency_p50_ms") for p in (PROFILE, slow))
    rate = throughput.METER.summarise(slow, "throughput_rps")

    assert found.value == before.value
    assert found.low is not None
    assert found.value is not None
    assert found.low < found.value / 1.2
    assert found.high == before.high
    assert found.ratio == before.ratio
    assert rate.high is not None
    assert rate.value is not None
    assert rate.high > rate.value * 1.2
    assert "drift of +20.0%" in found.how


def test_time_share_is_of_the_operators_time_on_the_provider_asked_for() -> None:
    """A quarter of the nodes may take most of the time."""
    rows = (
        OperatorCost("Conv", "CPUExecutionProvider", "float32", 1.0, 0.009),
        OperatorCost("Relu", "CUDAExecutionProvider", "float32", 3.0, 0.001),
    )
    environment = {"execution_provider": "CUDAExecutionProvider"}
    profile = Profile("v", operators=OperatorTable(rows, 50), environment=environment)
    found = placement.METER.summarise(profile, "provider_time_share")

    assert found.value == pytest.approx(0.1)
    assert "90.0% of the time on CPUExecutionProvider" in found.how


def test_time_share_without_a_table_or_without_time_is_missing() -> None:
    """Not a share of 0 or 1."""
    environment = {"execution_provider": "CPUExecutionProvider"}
    timeless = OperatorTable((OperatorCost("Relu", "CPUExecutionProvider", "float32", 1.0, 0.0),), 50)
    for profile in (Profile("v", environment=environment), Profile("v", operators=timeless, environment=environment)):
        assert placement.METER.summarise(profile, "provider_time_share").value is None


def test_mac_share_is_the_audits_or_missing() -> None:
    """Shapes that can't be told leave it unknown, not 0."""
    known = Profile("v", int8=Int8Audit(claimed=6, executed=5, total=10, mac_share=0.25))
    unknown = Profile("v", int8=Int8Audit(claimed=6, executed=5, total=10))

    assert placement.METER.summarise(known, "int8_mac_share").value == 0.25
    assert "shapes" in placement.METER.summarise(unknown, "int8_mac_share").reason
