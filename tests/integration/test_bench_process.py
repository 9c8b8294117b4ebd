"""The serving process itself: what it has loaded, what it holds, and serving under an energy counter."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autopilot import stats
from autopilot.bench.energy import PAIRS, measure_energy
from autopilot.bench.launcher import measure_cold, measure_empty
from autopilot.bench.live import Server
from autopilot.data import Split
from tests.integration.bench_support import LIMITS, ONE_THREAD, dense, samples, write_split

pytestmark = pytest.mark.integration

# None of these serves an ONNX model; each costs memory and time that would count as the variant's.
FOREIGN = {
    "torch", "mlflow", "optuna", "pandas", "pyarrow", "scipy", "sklearn", "onnx", "onnx_ir", "onnxscript", "onnxslim",
    "pydantic", "yaml", "rich", "typer", "psutil", "pynvml", "PIL",
}  # fmt: skip


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return write_split(tmp_path_factory.mktemp("data"), {"x": samples(64, 1024)})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, split: Split) -> Iterator[Server]:
    """A live server that has answered some requests."""
    model = dense(tmp_path_factory.mktemp("model") / "m.onnx", width=1024)
    with Server.start(model, ONE_THREAD, split=split, limits=LIMITS, requests=16) as live:
        live.block(16)
        yield live


def test_serving_process_holds_nothing_that_serving_does_not_need(server: Server) -> None:
    """No framework among the modules of a process that loaded a split, opened a session and answered."""
    loaded = {name.partition(".")[0] for name in server.modules()}

    assert {"numpy", "onnxruntime", "autopilot"} <= loaded
    assert not loaded & FOREIGN


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_serving_process_maps_no_foreign_library(server: Server) -> None:
    """Nor any shared library of theirs, whichever way it might have come in."""
    lines = Path(f"/proc/{server.pid}/maps").read_text().splitlines()
    packages = {part for line in lines if "site-packages/" in line for part in [line.split("site-packages/")[1]]}
    top = {path.partition("/")[0].partition(".")[0] for path in packages}

    assert "onnxruntime" in top
    assert not top & FOREIGN


def test_resident_memory_is_at_most_the_peak(server: Server) -> None:
    """The kernel's two figures belong to one process."""
    resident, peak = server.resident_memory_bytes(), server.peak_memory_bytes()

    assert resident is None or peak is None or 10e6 < resident <= peak


def cpu_s(pid: int) -> float:
    """Processor seconds of all threads of a process, as the kernel counts them."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_processor_time_of_a_block_is_that_of_all_its_threads(split: Split, tmp_path: Path) -> None:
    """Two threads: a block's processor time is what the kernel booked on the whole process meanwhile."""
    model = dense(tmp_path / "m.onnx", width=1024, layers=4)
    with Server.start(model, ONE_THREAD.with_(threads=2), split=split, limits=LIMITS) as server:
        server.warm_up()
        before = cpu_s(server.pid)
        blocks = [server.block(100) for _ in range(5)]
        booked = cpu_s(server.pid) - before

    told = sum(block.cpu_s for block in blocks)
    # The kernel counts in ticks of 10 ms and goes on while threads spin between blocks.
    assert told <= booked + 0.05
    assert told >= 0.5 * booked - 0.05


def test_empty_process_holds_the_same_requests_and_an_open_runtime(split: Split, tmp_path: Path) -> None:
    """Requests of some MB and the runtime's own session count on both sides, so that they aren't the model's."""
    heavy = write_split(tmp_path / "heavy", {"x": samples(16, 250_000)})
    bare, light, full = (measure_empty(ONE_THREAD, LIMITS, split=s) for s in (None, split, heavy))

    assert bare is not None
    assert light is not None
    assert full is not None
    assert bare <= light + 1_000_000
    assert full - light > 10e6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of loading is known for Linux")
def test_models_memory_is_its_weights_copied_once_and_its_rest_is_its_weights(tmp_path: Path) -> None:
    """64 MB of weights: ONNX Runtime holds the file's and its own packed copy while loading, then one of them."""
    split = write_split(tmp_path / "data", {"x": samples(16, 4000)})
    cold = measure_cold(dense(tmp_path / "m.onnx", width=4000), ONE_THREAD, split=split, limits=LIMITS, repeats=2)
    empty = measure_empty(ONE_THREAD, LIMITS, split=split)

    assert len(cold.starts_bytes) == 2
    assert cold.resident_memory_bytes is not None
    assert cold.resident_memory_bytes - empty == pytest.approx(64e6, rel=0.1)
    assert 64e6 * 0.95 < cold.peak_memory_bytes - empty < 64e6 * 2.2
    assert (cold.gpu_memory_bytes, bool(cold.gpu_memory_reason)) == (None, True)


class Fake:
    """A counter that follows the server's own processor clock: energy is known without any hardware."""

    source, scope, parts, registers = "fake", "one process", (), 1

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/schedstat")

    def read_mj(self) -> float:
        """A watt for every busy core, on top of which time alone costs nothing."""
        return int(self._stat.read_text().split()[0]) / 1e6


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs the scheduler's own account")
def test_energy_pass_attributes_busy_time_to_samples(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a counter that only the server's own work moves, a sample costs what its processor time costs."""
    monkeypatch.setattr("autopilot.bench.energy.update_period_s", lambda counter, **_: 0.0006)
    server.warm_up()
    cpu_ms = 1e3 * np.mean([(b := server.block(200)).cpu_s / b.latency_s.size for _ in range(5)])
    reading = measure_energy(server, Fake(server.pid))
    found = stats.excess_interval((reading.busy_mj, reading.busy_s), (reading.idle_mj, reading.idle_s), reading.samples)

    assert reading.samples.size == PAIRS
    assert reading.idle_mj.sum() < 0.2 * reading.busy_mj.sum()
    # A watt for a millisecond is a millijoule; machines are busy, so the range is wide.
    assert 0.3 * cpu_ms < found.value < 3 * cpu_ms
