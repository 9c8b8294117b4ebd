#!/usr/bin/env python3
"""torch.compile against ONNX Runtime on the host's cores: the model as given, the same requests, one after the other.

    python benchmarks/torch_compile.py FOLDER [--cap-s 40] [--json FILE]

FOLDER holds a ``spec.yaml``. Latency of the provider torch_compile over that of cpu, both with one thread and one
sample a request: fresh pairs of processes, interleaved. The first start compiles, into a cache of its own; later ones
read what was compiled. Both are told.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autopilot import plugins
from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import Served, compare
from autopilot.bench.launcher import Server
from autopilot.observer import NullObserver
from autopilot.recipe import Deployment
from autopilot.search.prepare import Setup, prepare
from autopilot.spec import load_spec
from autopilot.target import Target
from autopilot.temporary import temporary_folder
from benchmarks.main_job import print_table

LIMITS = ChildLimits(wall_s=120.0)
PROVIDERS = ("torch_compile", "cpu")


def measure(setup: Setup, cap_s: float) -> dict[str, Any]:
    """Seconds of the first and of a later start, the largest difference of an answer, the comparison."""
    split = setup.splits.validation
    served = [Served(setup.model.path, Deployment(name, threads=1, batch=1)) for name in PROVIDERS]
    starts_s: dict[str, list[float]] = {name: [] for name in PROVIDERS}
    for one in (*served, *served):
        with Server.start(one.artifact, one.deployment, split=split, limits=LIMITS) as server:
            starts_s[one.deployment.provider].append(server.load_s)
    found = compare(*served, split=split, limits=LIMITS, cap_s=cap_s)
    # Last, since it brings torch into this process.
    sessions = [plugins.providers()[s.deployment.provider].open(s.artifact, s.deployment) for s in served]
    mine, theirs = (np.concatenate([s.run(split.feed([i]))[0] for i in range(8)]) for s in sessions)
    return {
        "starts_s": starts_s,
        "largest_difference": float(np.abs(mine - theirs).max() / np.abs(theirs).max()),
        "comparison": found.to_json(),
    }


def main() -> int:
    """Measure, print; 2 where torch_compile can't run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="with a spec.yaml")
    parser.add_argument("--cap-s", type=float, default=40.0, help="seconds of the comparison, starts included")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reason = plugins.providers()["torch_compile"].usable(Target.detect())
    if reason is not None:
        print(f"torch_compile can't run here: {reason}", file=sys.stderr)
        return 2
    with temporary_folder("torch-compile") as scratch:
        os.environ["AUTOPILOT_CACHE_DIR"] = str(Path(scratch) / "cache")
        problem = load_spec(options.folder / "spec.yaml", plugins.vocabulary())
        told = measure(prepare(problem, Path(scratch) / "study", NullObserver()), options.cap_s)
    comparison = told["comparison"]
    ratio = comparison["ratio"]
    first, later = (f"{s:.1f}" for s in told["starts_s"]["torch_compile"])
    header = ["workload", "latency, torch_compile over cpu (95%)", "is", "first start s", "later start s", "differs by"]
    text = f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
    print_table(
        [header, [problem.name, text, comparison["verdict"], first, later, f"{told['largest_difference']:.1e}"]]
    )
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
