#!/usr/bin/env python3
"""Memory of a model with a known 200 MB weight, held against what a plain process that allocates as much takes.

    python benchmarks/measurement/memory.py [--starts N]

ONNX Runtime keeps the weight as it stood in the file while it packs it for its kernels, and frees it then: the
loading peak is two copies, what stays is one. A child that uses nothing but Python's ``bytearray`` does the
same allocations (two copies, then one freed) and reads the kernel's account of them: that is the truth. Figures
are those of the axes, less the same process with no model. The goal is an error of at most 5%.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from onnx import helper

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # small models and splits are made as the integration tests make them

from autopilot.bench.launcher import ColdReading, measure_cold, measure_empty  # noqa: E402
from autopilot.bench.live import Server  # noqa: E402
from autopilot.temporary import temporary_folder  # noqa: E402
from tests.integration.bench_support import LIMITS, ONE_THREAD, samples, save, value, write_split  # noqa: E402

ROWS, COLUMNS = 5_000, 10_000
WEIGHT_MB = ROWS * COLUMNS * 4 / 1e6
GOAL = 0.05
# What the server does to memory, without any of its code: no numpy, no runtime, no model.
_CHILD = """
import json
from pathlib import Path

def status():
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {w[0]: int(w[1]) * 1024 / 1e6 for w in lines if w[0] in ("VmHWM:", "VmRSS:")}

before = status()
file = bytearray(b"1") * %(n)d
packed = bytearray(file)
del file
after = status()
print(json.dumps({"peak": after["VmHWM:"] - before["VmRSS:"], "rest": after["VmRSS:"] - before["VmRSS:"]}))
"""


def truth() -> dict[str, float]:
    """Peak and rest, in MB, of a process that allocates the weight twice and frees one of them."""
    code = _CHILD % {"n": ROWS * COLUMNS * 4}
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def make_model(folder: Path) -> Path:
    """``x (n, ROWS) -> y (n, COLUMNS)``: one product with a weight of 200 MB, stored in the file."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs, outputs = [value("x", ["n", ROWS])], [value("y", ["n", COLUMNS])]
    return save(folder / "model.onnx", nodes, inputs, outputs, {"w": samples(ROWS, COLUMNS)})


def rollup_mb(pid: int) -> float:
    """Resident memory of a live process by the kernel's walk over its pages, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Rss:"))


def report(what: str, found_mb: float, true_mb: float) -> bool:
    """Print one figure beside its truth; whether it keeps the goal."""
    error = found_mb / true_mb - 1
    kept = abs(error) <= GOAL
    print(f"{what:34} {found_mb:8.1f} MB  truth {true_mb:6.1f} MB  error {error:+.2%}  {'ok' if kept else 'MISSED'}")
    return kept


def main() -> int:
    """Measure and print; 0 when every figure is within the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--starts", type=int, default=5, help="fresh processes (default 5)")
    starts = parser.parse_args().starts
    if not Path("/proc/self/status").is_file():
        sys.exit("this benchmark reads the kernel's account of memory under /proc: run it on Linux")
    true = truth()
    with temporary_folder("memory") as name:
        folder = Path(name)
        model = make_model(folder)
        split = write_split(folder / "data", {"x": samples(32, ROWS)})
        empty_bytes = measure_empty(ONE_THREAD, LIMITS, split=split)
        cold = measure_cold(model, ONE_THREAD, split=split, limits=LIMITS, repeats=starts)
        with Server.start(model, ONE_THREAD, split=split, limits=LIMITS) as server:
            server.block(16)
            walked_mb = rollup_mb(server.pid)
    assert empty_bytes is not None
    return 0 if show(cold, empty_bytes / 1e6, walked_mb, true) else 1


def show(cold: ColdReading, empty_mb: float, walked_mb: float, true: dict[str, float]) -> bool:
    """Print everything; whether all goals are kept."""
    assert cold.resident_memory_bytes is not None
    peaks = np.array(cold.starts_bytes) / 1e6
    resident_mb = cold.resident_memory_bytes / 1e6
    print(f"weight {WEIGHT_MB:.1f} MB; process with no model {empty_mb:.1f} MB; {peaks.size} starts with it")
    kept = [
        report("at rest, less the empty process", resident_mb - empty_mb, true["rest"]),
        report("loading peak (model_memory_mb)", float(peaks.mean()) - empty_mb, true["peak"]),
        report("at rest against the pages walked", resident_mb, walked_mb),
    ]
    spread = statistics.stdev(peaks) if peaks.size > 1 else float("nan")
    print(
        f"peak_memory_mb of the starts: {peaks.min():.2f} to {peaks.max():.2f} MB, standard deviation {spread:.3f} MB"
    )
    return all(kept)


if __name__ == "__main__":
    sys.exit(main())
