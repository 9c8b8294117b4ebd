#!/usr/bin/env python3
"""Start of the serving process for a small ONNX model: process start to ready, the median of ten.

    python benchmarks/measurement/start.py [--starts N]

Files are in the page cache, as they are for a restarted server. The goal is a median below 0.6 s, with nothing
imported that serving doesn't need.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # small models and splits are made as the integration tests make them

from autopilot.bench.live import Server  # noqa: E402
from autopilot.temporary import temporary_folder  # noqa: E402
from tests.integration.bench_support import LIMITS, ONE_THREAD, dense, samples, write_split  # noqa: E402

GOAL_S = 0.6
# Installed beside the package, and none of them serves a model.
FOREIGN = {"torch", "mlflow", "optuna", "pandas", "pyarrow", "scipy", "sklearn", "onnx", "pydantic", "yaml", "rich"}


def main() -> int:
    """Measure and print; 0 when the median keeps the goal and nothing foreign is loaded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--starts", type=int, default=10, help="how many starts (default 10)")
    starts = parser.parse_args().starts
    ready_s, load_s = [], []
    with temporary_folder("start") as name:
        folder = Path(name)
        model = dense(folder / "model.onnx")
        split = write_split(folder / "data", {"x": samples(64, 16)})
        for number in range(starts + 1):
            began = time.perf_counter()
            with Server.start(model, ONE_THREAD, split=split, limits=LIMITS) as server:
                if number:  # the first start fills the page cache and isn't counted
                    ready_s.append(time.perf_counter() - began)
                    load_s.append(server.load_s)
                modules = server.modules()
    foreign = sorted({m.partition(".")[0] for m in modules} & FOREIGN)
    median_s = statistics.median(ready_s)
    print(
        f"start to ready: median {median_s:.3f} s of {starts} ({min(ready_s):.3f} to {max(ready_s):.3f}), "
        f"goal < {GOAL_S} s; load_s: median {statistics.median(load_s):.3f} s"
    )
    print(f"{len(modules)} modules loaded; not needed for serving: {', '.join(foreign) or 'none'}")
    return 0 if median_s < GOAL_S and not foreign else 1


if __name__ == "__main__":
    sys.exit(main())
