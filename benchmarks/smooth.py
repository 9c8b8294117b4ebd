#!/usr/bin/env python3
"""What SmoothQuant does to static int8: accuracy on the validation data at each strength, and what it costs in time.

    python benchmarks/smooth.py FOLDER [--smooth 0,0.3,0.5,0.8] [--scope weighted] [--json FILE] [--compare]

A FOLDER holds a ``spec.yaml`` with labels. Everything else of static int8 is as this machine prefers it for the CPU
provider. ``--compare`` times each strength against none: fresh pairs of processes, interleaved, one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autopilot import plugins
from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import Served, compare
from autopilot.contracts import Array, BuildContext
from autopilot.data import Split
from autopilot.observer import NullObserver
from autopilot.recipe import Deployment
from autopilot.search.prepare import Setup, prepare
from autopilot.spec import load_spec
from autopilot.techniques import _onnx, static_int8
from autopilot.temporary import temporary_folder
from benchmarks.main_job import print_table

LIMITS = ChildLimits(wall_s=120.0)
# Samples that are answered at once: a few hundred kilobytes an activation.
BATCH = 50


def build(setup: Setup, folder: Path, smooth: float, scope: str, context: BuildContext) -> Path:
    """The static int8 model at this strength."""
    technique = static_int8.TECHNIQUE
    params = {k: d.default for k, d in technique.parameters.items()}
    target = replace(setup.target, provider="cpu")
    preferred = technique.prefer(target)[0]
    folder.mkdir(parents=True)
    technique.apply(setup.model.path, folder, {**params, **preferred, "scope": scope, "smooth": smooth}, context)
    return folder / _onnx.MODEL


def answers(model: Path, split: Split) -> Array:
    """The first output for every sample, shape (n, …)."""
    runner = _onnx.session(model, 1)
    parts = [
        runner.run(None, split.feed(slice(start, min(start + BATCH, split.n))))[0] for start in range(0, split.n, BATCH)
    ]
    return np.concatenate(parts)


def measure(setup: Setup, options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """A row a strength, after one for the model as given."""
    split = setup.splits.validation
    labels = np.asarray(split.labels)
    context = BuildContext(setup.splits.calibration, work / "scratch", 1, setup.classification)
    expected = answers(setup.model.path, split)
    given = {"smooth": None, "quality": setup.metric.score(expected, labels, setup.metric.options), "error": 0.0}
    rows: list[dict[str, Any]] = [given]
    plain: Served | None = None
    for smooth in options.smooth:
        model = build(setup, work / f"smooth-{smooth}", smooth, options.scope, context)
        got = answers(model, split)
        row: dict[str, Any] = {
            "smooth": smooth,
            "quality": setup.metric.score(got, labels, setup.metric.options),
            "error": float(np.abs(got - expected).mean() / np.abs(expected).mean()),
        }
        served = Served(model, Deployment("cpu", 1, 1))
        plain = plain or served
        if options.compare and served is not plain:
            row["latency"] = compare(served, plain, split=split, limits=LIMITS, cap_s=12.0).to_json()
        rows.append(row)
    return rows


def shown(row: dict[str, Any]) -> Sequence[str]:
    """A row of the table."""
    told = row.get("latency")
    ratio = f"{told['ratio']['value']:.3f} ({told['ratio']['low']:.3f} to {told['ratio']['high']:.3f})" if told else "-"
    name = "as given" if row["smooth"] is None else f"{row['smooth']:g}"
    return [name, f"{row['quality']:.4f}", f"{row['error']:.4f}", ratio]


def main() -> int:
    """Build, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="with a spec.yaml")
    parser.add_argument("--smooth", type=lambda t: [float(v) for v in t.split(",")], default=[0.0, 0.3, 0.5, 0.8])
    parser.add_argument("--scope", default="weighted", choices=("weighted", "attention", "all"))
    parser.add_argument("--compare", action="store_true", help="also time each strength against the first")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    problem = load_spec(options.folder / "spec.yaml", plugins.vocabulary())
    with temporary_folder("smooth") as scratch:
        setup = prepare(problem, Path(scratch) / "study", NullObserver())
        rows = measure(setup, options, Path(scratch))
    print_table([["smooth", "quality", "relative error", "latency over the first (95%)"], *(shown(r) for r in rows)])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
