"""The energy pass against a made-up machine whose power is known: fake sysfs, fake NVML, fake clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot import nvml, stats
from autopilot.bench.energy import PAIRS, SERVED_S, measure_energy, open_counter, update_period_s
from autopilot.counters import Counter, NvmlCounter, RaplCounter, SumCounter, rapl_packages
from autopilot.errors import NotMeasurable
from autopilot.profile import EnergyReading, Interval, Placement
from tests.unit.fake_nvml import FakeNvml

ON_CPU = Placement({"CPUExecutionProvider": 3})
ON_GPU = Placement({"CUDAExecutionProvider": 3})
RANGE_UJ = 262_143_328_850


def domain(root: Path, name: str, kind: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    """One powercap domain, as Linux shows it."""
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder


# ---- counters --------------------------------------------------------------------------------------


def test_packages_alone_are_counted(tmp_path: Path) -> None:
    """Two sockets; not their cores, not the DRAM, not the platform, not the second view of the same package."""
    for name, kind in {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }.items():
        domain(tmp_path, name, kind, 1)

    assert [f.name for f in rapl_packages(tmp_path)] == ["intel-rapl:0", "intel-rapl:1"]


def test_package_counters_are_added_in_millijoules(tmp_path: Path) -> None:
    """2 J on one socket and 1 J on the other are 3,000 mJ."""
    folders = [domain(tmp_path, f"intel-rapl:{i}", f"package-{i}", 10_000_000) for i in (0, 1)]
    counter = RaplCounter(folders)
    before = counter.read_mj()
    domain(tmp_path, "intel-rapl:0", "package-0", 12_000_000)
    domain(tmp_path, "intel-rapl:1", "package-1", 11_000_000)

    assert counter.read_mj() - before == pytest.approx(3000.0)


@given(st.lists(st.integers(0, 999_999), min_size=1, max_size=20), st.integers(0, 999_999))
@settings(max_examples=50, deadline=None)
def test_counter_that_wraps_goes_on(tmp_path_factory: pytest.TempPathFactory, steps: list[int], start: int) -> None:
    """Whatever the steps between readings, their sum is what was used, wherever the counter starts over."""
    root = tmp_path_factory.mktemp("rapl")
    counter = RaplCounter([domain(root, "intel-rapl:0", "package-0", start, 1_000_000)])
    first = counter.read_mj()
    used = 0
    for step in steps:
        used += step
        domain(root, "intel-rapl:0", "package-0", (start + used) % 1_000_000, 1_000_000)
        assert counter.read_mj() - first == pytest.approx(used / 1e3)


def test_counter_that_vanishes_is_a_reason(tmp_path: Path) -> None:
    """Rights taken away while it is read: not a number, not a crash."""
    folder = domain(tmp_path, "intel-rapl:0", "package-0", 5)
    counter = RaplCounter([folder])
    counter.read_mj()
    (folder / "energy_uj").unlink()

    with pytest.raises(NotMeasurable, match="energy_uj"):
        counter.read_mj()


def test_device_counters_are_added_and_errors_are_reasons() -> None:
    """Two devices; a device before Volta has no counter."""
    devices = nvml.open_devices(FakeNvml([[], []], energy_mj=lambda i: 100 + i))
    old = nvml.open_devices(FakeNvml([[]], fails="nvmlDeviceGetTotalEnergyConsumption"))

    assert NvmlCounter(devices).read_mj() == 201.0
    with pytest.raises(NotMeasurable, match="Not Supported"):
        NvmlCounter(old).read_mj()


def test_variant_on_the_host_takes_the_packages(tmp_path: Path) -> None:
    """A device beside it is none of its business."""
    domain(tmp_path, "intel-rapl:0", "package-0", 5)
    found = open_counter(1, ON_CPU, root=tmp_path, api=FakeNvml([[]], energy_mj=lambda i: 0))

    assert found.source == "rapl"
    assert "without DRAM" in found.scope


def test_variant_on_a_device_takes_both_where_both_are_there(tmp_path: Path) -> None:
    """Alone the device's counter, named as such; with packages their sum."""
    api = FakeNvml([[]], energy_mj=lambda i: 7)
    alone = open_counter(1, ON_GPU, root=tmp_path, api=api)
    domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    both = open_counter(1, ON_GPU, root=tmp_path, api=api)
    before = both.read_mj()
    domain(tmp_path, "intel-rapl:0", "package-0", 6_000_000)

    assert (alone.source, alone.read_mj()) == ("nvml", 7.0)
    assert isinstance(both, SumCounter)
    assert both.source == "rapl+nvml"
    assert both.read_mj() - before == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("placement", "with_rapl", "said"),
    [(ON_CPU, False, "no RAPL counter"), (ON_GPU, True, "NVML doesn't answer")],
)
def test_hardware_without_its_counter_is_a_reason(
    tmp_path: Path, placement: Placement, with_rapl: bool, said: str
) -> None:
    """The CPU's counter says nothing of a device's energy, nor the other way round."""
    if with_rapl:
        domain(tmp_path, "intel-rapl:0", "package-0", 5)
    with pytest.raises(NotMeasurable, match=said):
        open_counter(1, placement, root=tmp_path, api=FakeNvml([[]], fails="nvmlInit"))


# ---- the pass --------------------------------------------------------------------------------------


@dataclass
class Machine:
    """A clock, a server and a counter of known power: ``idle_w`` at time t, ``busy_w`` more while serving."""

    idle_w: Callable[[float], float]
    busy_w: float
    request_s: float = 0.001
    update_s: float = 0.001
    now: float = 0.0
    energy_mj: float = 0.0
    served: int = 0
    settled: int = 0
    log: list[str] = field(default_factory=list)
    source: str = "fake"
    scope: str = "a made-up machine"
    parts: tuple[Counter, ...] = ()
    registers: int = 1
    _shown: tuple[int, float] = (-1, 0.0)

    def pass_time(self, seconds: float, extra_w: float = 0.0) -> None:
        middle = self.now + seconds / 2
        self.energy_mj += 1e3 * seconds * (self.idle_w(middle) + extra_w)
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        if seconds > 0.01:
            self.log.append("idle")
        self.pass_time(seconds)

    def clock(self) -> float:
        return self.now

    def read_mj(self) -> float:
        """What the last update showed."""
        tick = math.floor(self.now / self.update_s)
        if tick != self._shown[0]:
            self._shown = (tick, self.energy_mj)
        return self._shown[1]

    def serve_for(self, seconds: float) -> int:
        n = max(1, round(seconds / self.request_s))
        self.log.append("busy")
        self.served += n
        self.pass_time(n * self.request_s, self.busy_w)
        return n

    def settle(self) -> None:
        self.settled += 1

    def measure(self) -> EnergyReading:
        return measure_energy(self, self, clock=self.clock, sleep=self.sleep)


def above_idle(e: EnergyReading) -> Interval:
    return stats.excess_interval((e.busy_mj, e.busy_s), (e.idle_mj, e.idle_s), e.samples)


def test_energy_of_a_known_machine_is_found() -> None:
    """5 W above an idle of 20 W at 1 ms a sample are 5 mJ a sample; a latency of 1 ms says nothing of that."""
    reading = Machine(lambda t: 20.0, 5.0).measure()
    found = above_idle(reading)

    assert found.value == pytest.approx(5.0, rel=0.05)
    assert found.low <= 5.0 <= found.high
    assert reading.idle_w == pytest.approx(20.0, rel=0.05)


def test_steady_drift_of_idle_power_cancels() -> None:
    """Idle power that climbs by a third through the pass: the figure doesn't follow it."""
    reading = Machine(lambda t: 20.0 + 3.0 * t, 5.0).measure()
    found = above_idle(reading)

    assert found.value == pytest.approx(5.0, rel=0.03)
    assert found.low <= 5.0 <= found.high


def test_blocks_alternate_and_the_order_within_pairs_too() -> None:
    """Idle, busy, busy, idle: as many of each, so that neither is always the later one."""
    machine = Machine(lambda t: 20.0, 5.0)
    machine.measure()

    assert machine.log[:8] == ["idle", "busy", "busy", "idle"] * 2
    assert machine.log.count("idle") == machine.log.count("busy") == PAIRS
    assert machine.settled == PAIRS + 1


@pytest.mark.parametrize(("update_s", "busy_s"), [(0.001, 1.0), (0.1, SERVED_S)])
def test_pass_lasts_for_a_thousand_updates_or_ten_seconds(update_s: float, busy_s: float) -> None:
    """Whichever is reached first: a second of RAPL, ten of NVML."""
    reading = Machine(lambda t: 20.0, 5.0, update_s=update_s).measure()

    assert float(reading.busy_s.sum()) == pytest.approx(busy_s, rel=0.1)
    assert reading.update_s == pytest.approx(update_s, rel=0.15)


def test_undecided_reading_goes_on_to_ten_seconds() -> None:
    """Rounds of pairs follow while a limit is open, and no longer than that."""
    machine, asked = Machine(lambda t: 20.0, 5.0), []

    def decided(reading: EnergyReading) -> bool:
        asked.append(reading.samples.size)
        return reading.samples.size >= 3 * PAIRS

    reading = measure_energy(machine, machine, decided=decided, clock=machine.clock, sleep=machine.sleep)
    endless = measure_energy(machine, machine, decided=lambda r: False, clock=machine.clock, sleep=machine.sleep)

    assert asked == [PAIRS, 2 * PAIRS, 3 * PAIRS]
    assert reading.busy_mj.size == reading.idle_mj.size == 3 * PAIRS
    assert 0.95 * SERVED_S < float(endless.busy_s.sum()) < 1.2 * SERVED_S


def test_one_request_that_outlasts_a_block_is_waited_for() -> None:
    """A request of a second in blocks of 80 ms: the pass takes longer, the figure holds."""
    reading = Machine(lambda t: 20.0, 5.0, request_s=1.0).measure()

    assert reading.samples.tolist() == [1.0] * PAIRS
    assert above_idle(reading).value == pytest.approx(5000.0, rel=0.02)


def test_counter_that_stands_still_is_a_reason() -> None:
    """A counter frozen by a hypervisor must not read as no energy."""
    machine = Machine(lambda t: 0.0, 5.0)

    with pytest.raises(NotMeasurable, match="stood still"):
        update_period_s(machine, clock=machine.clock, sleep=machine.sleep)


def test_slowest_counter_of_a_sum_sets_the_length() -> None:
    """RAPL beside NVML changes a thousand times a second; the device's counter still needs its ten seconds."""
    machine = Machine(lambda t: 20.0, 5.0)

    class Slow:
        source, scope, parts, registers = "slow", "", (), 1

        def read_mj(self) -> float:
            return float(math.floor(machine.now / 0.1))

    both = SumCounter((machine, Slow()))

    assert update_period_s(both, clock=machine.clock, sleep=machine.sleep) == pytest.approx(0.1, rel=0.15)


def test_several_sockets_are_each_watched_for_their_own_updates() -> None:
    """Two counters of one kind change twice as often in their sum: the period is one counter's."""
    machine = Machine(lambda t: 20.0, 5.0, update_s=0.005, registers=2)

    assert update_period_s(machine, clock=machine.clock, sleep=machine.sleep) == pytest.approx(0.01, rel=0.15)


def test_interval_covers_the_truth_when_idle_power_is_noisy() -> None:
    """Of 400 noisy passes about 95% hold the true figure; a third of the noise is shared within a pair."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        shared = rng.normal(20e3, 300, PAIRS)
        idle, busy = shared + rng.normal(0, 500, PAIRS), shared + 2e3 + rng.normal(0, 500, PAIRS)
        one = np.ones(PAIRS)
        found = stats.excess_interval((busy, one), (idle, one), 1000 * one)
        hits += found.low <= 2.0 <= found.high

    assert 0.92 <= hits / 400 <= 0.98


def test_single_pair_has_no_bounds() -> None:
    """One pair says nothing of the spread between pairs."""
    one = np.ones(1)
    found = stats.excess_interval((3 * one, one), (one, one), one)

    assert (found.value, found.low, found.high) == (2.0, -math.inf, math.inf)
