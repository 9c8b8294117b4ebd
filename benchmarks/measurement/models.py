"""Small real models for the timing benchmarks, and a process that keeps a core busy."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autopilot.bench.compare import Served
from autopilot.bench.cores import server_cores
from autopilot.data import Split
from autopilot.recipe import Deployment
from tests.integration.bench_support import dense, samples, write_split

ONE_THREAD = Deployment("cpu", threads=1, batch=16)
WIDTH = 128
LAYERS, SLOWER_LAYERS = 40, 42


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models of equal matrix products: 40 layers and 42, 5% more work; samples for both."""

    plain: Served
    slower: Served
    split: Split


def planted(folder: Path) -> Pair:
    """Write both models and 256 samples to ``folder``; a request takes some tenths of a millisecond."""
    plain = dense(folder / "plain.onnx", width=WIDTH, layers=LAYERS)
    slower = dense(folder / "slower.onnx", width=WIDTH, layers=SLOWER_LAYERS)
    split = write_split(folder / "data", {"x": samples(256, WIDTH)})
    return Pair(Served(plain, ONE_THREAD), Served(slower, ONE_THREAD), split)


@contextlib.contextmanager
def busy_other_core() -> Iterator[bool]:
    """A process that spins on a core that the servers don't use; False where there is no such core to be had."""
    if not hasattr(os, "sched_getaffinity"):
        yield False
        return
    free = sorted(os.sched_getaffinity(0) - set(server_cores(1)))
    if not free:
        yield False
        return
    code = f"import os; os.sched_setaffinity(0, [{free[0]}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield True
    finally:
        process.kill()
        process.wait()
