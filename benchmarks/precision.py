#!/usr/bin/env python3
"""Techniques that change the precision side by side: accuracy on the validation data, and time against the model given.

    python benchmarks/precision.py FOLDER [--techniques static_int8,dynamic_int8] [--compare] [--json FILE]

A FOLDER holds a ``spec.yaml`` with labels. Each technique runs with what it prefers on this machine for the CPU
provider. ``--compare`` times each against the model as given: fresh pairs of processes, interleaved, one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autopilot import plugins
from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import Served, compare
from autopilot.contracts import BuildContext
from autopilot.observer import NullObserver
from autopilot.recipe import Deployment
from autopilot.search.prepare import Setup, prepare
from autopilot.spec import load_spec
from autopilot.techniques import _onnx
from autopilot.temporary import temporary_folder
from benchmarks.main_job import print_table
from benchmarks.smooth import answers

LIMITS = ChildLimits(wall_s=120.0)
# Of which the first fifth is warm-up.
REQUESTS = 250


def build(setup: Setup, name: str, folder: Path, context: BuildContext) -> Path:
    """What ``name`` makes of the model as given, with what it prefers first."""
    technique = plugins.techniques()[name]
    params = {k: d.default for k, d in technique.parameters.items()}
    preferred = technique.prefer(replace(setup.target, provider="cpu"))[0]
    folder.mkdir(parents=True)
    technique.apply(setup.model.path, folder, technique.normalise({**params, **preferred}), context)
    return folder / _onnx.MODEL


def measure(setup: Setup, options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """A row a technique, after one for the model as given."""
    split = setup.splits.validation
    labels = np.asarray(split.labels)
    context = BuildContext(setup.splits.calibration, work / "scratch", 1, setup.classification)
    expected = answers(setup.model.path, split)
    given = Served(setup.model.path, Deployment("cpu", 1, 1))
    score = setup.metric.score
    first = {"technique": "as given", "quality": score(expected, labels, setup.metric.options)}
    rows: list[dict[str, Any]] = [{**first, "request_ms": request_ms(setup.model.path, setup)}]
    for name in options.techniques:
        start_s = time.perf_counter()
        model = build(setup, name, work / name, context)
        took_s = time.perf_counter() - start_s
        got = answers(model, split)
        row: dict[str, Any] = {
            "technique": name,
            "quality": score(got, labels, setup.metric.options),
            "error": float(np.linalg.norm(got - expected) / np.linalg.norm(expected)),
            "build_s": took_s,
            "request_ms": request_ms(model, setup),
            "size_mb": model.stat().st_size / 1e6,
        }
        if options.compare:
            served = Served(model, Deployment("cpu", 1, 1))
            row["latency"] = compare(served, given, split=split, limits=LIMITS, cap_s=options.cap_s).to_json()
        rows.append(row)
    return rows


def request_ms(model: Path, setup: Setup) -> float:
    """Median milliseconds of a request of one sample in this process, one thread; to tell the order of size only."""
    runner = _onnx.session(model, 1)
    feeds = [setup.splits.validation.feed([i % setup.splits.validation.n]) for i in range(REQUESTS)]
    took_s = []
    for feed in feeds:
        start_s = time.perf_counter()
        runner.run(None, feed)
        took_s.append(time.perf_counter() - start_s)
    return 1e3 * float(np.median(took_s[REQUESTS // 5 :]))


def shown(row: dict[str, Any]) -> Sequence[str]:
    """A row of the table."""
    told = row.get("latency")
    ratio = f"{told['ratio']['value']:.3f} ({told['ratio']['low']:.3f} to {told['ratio']['high']:.3f})" if told else "-"
    error, size, build_s = (
        f"{row[k]:.{n}f}" if k in row else "-" for k, n in (("error", 4), ("size_mb", 2), ("build_s", 1))
    )
    return [row["technique"], f"{row['quality']:.4f}", error, f"{row['request_ms']:.3f}", ratio, size, build_s]


def main() -> int:
    """Build, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="with a spec.yaml")
    parser.add_argument("--techniques", type=lambda t: t.split(","), default=["static_int8", "dynamic_int8"])
    parser.add_argument("--compare", action="store_true", help="also time each against the model as given")
    parser.add_argument("--cap-s", type=float, default=12.0, help="seconds that one comparison may take")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    problem = load_spec(options.folder / "spec.yaml", plugins.vocabulary())
    with temporary_folder("precision") as scratch:
        setup = prepare(problem, Path(scratch) / "study", NullObserver())
        rows = measure(setup, options, Path(scratch))
    head = ["technique", "quality", "relative error", "ms", "latency over given (95%)", "MB", "build s"]
    print_table([head, *(shown(r) for r in rows)])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
