"""A whole check with an energy counter: made-up powercap files that a thread keeps going."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopilot import counters
from autopilot.budget import Judgement
from autopilot.search import check
from tests.integration.run_support import write_study

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the made-up counter follows Linux's account"),
]

IDLE_W, CORE_W = 20.0, 10.0


def busy_s() -> float:
    """Seconds that all cores of the machine were busy, as the kernel counts them."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def powercap(tmp_path: Path) -> Iterator[Path]:
    """The root of a machine whose package takes 20 W, and 10 W more for each busy core."""
    folder = tmp_path / "root/sys/class/powercap/intel-rapl:0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("package-0\n")
    (folder / "max_energy_range_uj").write_text("262143328850\n")
    ended = threading.Event()
    start_s, start_busy_s = time.monotonic(), busy_s()

    def write() -> None:
        joules = IDLE_W * (time.monotonic() - start_s) + CORE_W * (busy_s() - start_busy_s)
        (folder / "part").write_text(f"{round(1e6 * joules)}\n")
        (folder / "part").replace(folder / "energy_uj")

    def keep_going() -> None:
        while not ended.wait(0.002):
            write()

    write()
    thread = threading.Thread(target=keep_going, daemon=True)
    thread.start()
    yield tmp_path / "root"
    ended.set()
    thread.join()


def test_energy_limit_is_judged_where_a_counter_is_there(
    tmp_path: Path, powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figure, its interval and what it includes are there, and the limit has a verdict."""
    packages, reason = counters.rapl_packages, counters.rapl_reason
    monkeypatch.setattr(counters, "rapl_packages", lambda root=None: packages(powercap))
    monkeypatch.setattr(counters, "rapl_reason", lambda root=None: reason(powercap))
    folder = tmp_path / "study"
    folder.mkdir()
    spec = write_study(folder, budget={"energy_mj": 1e6, "quality_drop": 0.5})

    found = check(folder / "model.onnx", spec)

    energy = found.measured["energy_mj"]
    assert energy.value is not None
    assert energy.low is not None
    assert energy.high is not None
    assert energy.low <= energy.value <= energy.high
    assert energy.value < 1000.0  # 10 W for the far less than 100 ms that a small model takes
    assert "rapl counter (processor packages" in energy.how
    assert "idle power of" in energy.how
    assert found.verdict.per_limit["energy_mj"] is Judgement.IN
