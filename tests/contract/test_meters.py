"""What every meter must keep to, whoever wrote it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from autopilot import plugins
from autopilot.contracts import Axis, Meter
from autopilot.profile import (
    EnergyReading,
    Int8Audit,
    Interval,
    LatencyReading,
    Measurement,
    OperatorCost,
    OperatorTable,
    Placement,
    Profile,
    QualityReading,
    RateReading,
    TrafficReading,
)

METERS = sorted(plugins.meters().items())
AXES = [(meter, axis) for _, meter in METERS for axis in meter.axes]
UNITS = ("_ms", "_s", "_mb", "_mj", "_rps", "_per_million", "_share", "quality", "quality_drop")

each_meter = pytest.mark.parametrize(("name", "meter"), METERS, ids=[name for name, _ in METERS])
each_axis = pytest.mark.parametrize(("meter", "axis"), AXES, ids=[axis.name for _, axis in AXES])


def full_profile() -> Profile:
    """A profile in which every pass was run."""
    rng = np.random.default_rng(0)

    def latency(scale: float) -> LatencyReading:
        values = scale * rng.uniform(0.9, 1.1, (12, 50))
        block = np.repeat(np.arange(12, dtype=np.int32), 50)
        return LatencyReading(values.ravel(), block, values.sum(axis=1), values.sum(axis=1))

    def traffic() -> TrafficReading:
        offered = np.full(12, 50, dtype=np.int32)
        return TrafficReading(
            rate_rps=50.0,
            window_s=1.0,
            instances=1,
            batch=1,
            offered=offered,
            answered=offered,
            dropped=np.zeros(12, dtype=np.int32),
            unanswered=np.zeros(12, dtype=np.int32),
            busy_s=np.full(12, 0.05),
            batch_sizes=np.array([0, 600], dtype=np.int32),
            full_runs_s=np.full(600, 1e-3),
            queue_s=np.full(600, 1e-4),
            service_s=np.full(600, 1e-3),
            send_lag_s=np.full(600, 1e-5),
            max_rate=RateReading(500.0, 480.0, 520.0, 9),
        )

    return Profile(
        "variant",
        size_bytes=1_000_000,
        load_s=np.array([0.2, 0.3, 0.25]),
        peak_memory_bytes=90_000_000,
        empty_memory_bytes=50_000_000,
        resident_memory_bytes=70_000_000,
        gpu_memory_bytes=10_000_000,
        latency=replace(latency(0.001), traffic=traffic()),
        baseline_latency=latency(0.002),
        energy=EnergyReading(*rng.uniform(1.0, 1.1, (5, 12)), "rapl", "the package", 0.001),
        quality=QualityReading(
            "accuracy", "test", 100, Interval(0.9, 0.85, 0.95), 0.91, Interval(0.01, 0.0, 0.02), "x"
        ),
        placement=Placement({"CPUExecutionProvider": 7}),
        int8=Int8Audit(2, 2, 4, 0.5),
        operators=OperatorTable((OperatorCost("Conv", "CPUExecutionProvider", "float32", 2.0, 0.001),), 50),
        price_per_hour=0.2,
        environment={"execution_provider": "CPUExecutionProvider"},
    )


@each_meter
def test_meter_is_called_like_its_module(name: str, meter: Meter) -> None:
    """File name = plug-in name."""
    assert meter.name == name
    assert meter.axes


def test_no_axis_belongs_to_two_meters() -> None:
    """A budget key must mean one thing."""
    names = [axis.name for _, axis in AXES]

    assert len(set(names)) == len(names)


@each_axis
def test_axis_has_its_unit_in_its_name_and_a_summary(meter: Meter, axis: Axis) -> None:
    """Units in the name of every number."""
    assert axis.name.endswith(UNITS)
    assert axis.summary


@each_axis
def test_meter_finds_its_own_axis_and_no_other(meter: Meter, axis: Axis) -> None:
    """``axis()`` answers for the meter's names only."""
    assert meter.axis(axis.name) == axis
    assert meter.axis("nothing_ms") is None
    assert meter.axis("") is None


@each_axis
def test_axis_is_measured_from_a_full_profile(meter: Meter, axis: Axis) -> None:
    """A finite value inside its bounds, with a sample count and how it was taken."""
    found = meter.summarise(full_profile(), axis.name)

    assert found.axis == axis.name
    assert found.value is not None
    assert math.isfinite(found.value)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    assert found.n >= 1
    assert found.how


@each_axis
def test_axis_of_an_empty_profile_is_missing_with_a_reason(meter: Meter, axis: Axis) -> None:
    """A number is never made up."""
    found = meter.summarise(Profile("variant"), axis.name)

    assert found.value is None
    assert len(found.reason) > 10


@each_axis
def test_measurement_survives_json(meter: Meter, axis: Axis) -> None:
    """What is logged reads back as what was measured."""
    found = meter.summarise(full_profile(), axis.name)

    assert Measurement.from_json(axis.name, found.to_json()) == found


def test_every_axis_of_the_interface_has_a_meter() -> None:
    """The names that specs may use."""
    promised = (
        "latency_mean_ms latency_p50_ms latency_p90_ms latency_p95_ms latency_p99_ms throughput_rps cpu_ms "
        "peak_memory_mb model_memory_mb resident_memory_mb gpu_memory_mb size_mb load_s energy_mj "
        "cost_per_million quality quality_drop"
    )

    assert set(promised.split()) <= set(plugins.axis_names())
