#!/usr/bin/env python3
"""What each family of techniques adds: quantization only, pruning before it, distillation before it.

    python benchmarks/ladder.py FOLDER [--spec spec.yaml] [--timeout 25m] [--space train] [--json FILE] [--keep DIR]

FOLDER holds the spec and its data. The budget is replaced by ``quality_drop: 0.01`` alone, the objective is the
median latency, one serving thread, single stream. After one search over everything, the fastest trial of each rung
that is in budget (else undecided) is checked by ``autopilot check``: fresh processes, interleaved with the model as
given, on the held-back test data. A rung holds the recipes of the rungs before it, so that more is never slower.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.main_job import AUTOPILOT, print_table

QUALITY_DROP = 0.01
PRUNING = frozenset({"prune_channels", "prune_heads"})
TRAINING = frozenset({"distill", "qat"})
# Which techniques a rung may not hold.
RUNGS: Mapping[str, frozenset[str]] = {
    "quantization only": PRUNING | TRAINING,
    "+ pruning": TRAINING,
    "+ distillation": frozenset(),
}
# So many of a rung are checked, until one is in budget: the fastest of many was lucky in part.
TRIED = 4
# What a trial's verdict is worth: one in budget first, one nobody can tell after, no others.
ORDER = {"in": 0, "undecided": 1}


def study(folder: Path, options: argparse.Namespace, scratch: Path) -> Path:
    """A copy of ``folder`` whose spec asks the benchmark's question; the path of that spec."""
    copy = scratch / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("runs", "mlruns"), dirs_exist_ok=True)
    raw: dict[str, Any] = yaml.safe_load((copy / options.spec).read_text(encoding="utf-8"))
    raw["budget"] = {"quality_drop": QUALITY_DROP}
    raw["objective"] = "latency_p50_ms"
    raw["traffic"] = {"scenario": "single_stream"}
    raw["target"] = {**raw.get("target", {}), "threads": 1}
    raw["space"] = options.space
    raw["search"] = {**raw.get("search", {}), "trials": options.trials, "timeout": options.timeout}
    path = copy / "ladder.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


def fastest(trials: Sequence[Mapping[str, Any]], barred: frozenset[str]) -> list[Mapping[str, Any]]:
    """The trials without a barred technique that may fit, those in budget first, the fastest first."""
    able = [
        t
        for t in trials
        if t["state"] == "complete"
        and t["overall"] in ORDER
        and t.get("artifact")
        and not {step["technique"] for step in t["recipe"]} & barred
    ]
    return sorted(able, key=lambda t: (ORDER[t["overall"]], t["measured"]["latency_p50_ms"]["value"]))[:TRIED]


def check(trial: Mapping[str, Any], spec: Path, scratch: Path) -> Mapping[str, Any] | None:
    """What ``autopilot check`` says of a trial's artifact in its own deployment; None where it failed."""
    bundle = Path(tempfile.mkdtemp(prefix="bundle-", dir=scratch))
    main, *rest = [Path(f) for f in trial["artifact"]["files"]]
    shutil.copyfile(main, bundle / "model.onnx")
    for file in rest:
        shutil.copyfile(file, bundle / file.name)
    (bundle / "variant.json").write_text(json.dumps({"deployment": trial["deployment"]}), encoding="utf-8")
    command = [*AUTOPILOT, "check", str(bundle), str(spec), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=spec.parent)
    if not done.stdout.strip():
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def recipe_text(trial: Mapping[str, Any]) -> str:
    """Techniques with the parameters that say how far they go."""
    shown = ("ratio", "share", "keep", "depth", "student", "effort", "epochs", "loss")
    parts = []
    for step in trial["recipe"]:
        told = [
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in step.items()
            if name in shown
        ]
        parts.append(step["technique"] + (f"({', '.join(told)})" if told else ""))
    return " + ".join(parts) or "-"


def row(trial: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """One trial: speed against the model as given, loss of quality, its verdict on the test data."""
    speed = told["measured"].get("latency_p50_ms", {})
    ratio = speed.get("ratio") or {}
    drop = told["measured"].get("quality_drop", {})
    return {
        "trial": trial["number"],
        "recipe": recipe_text(trial),
        "latency_p50_ms": speed.get("value"),
        "speedup": [1 / ratio[k] for k in ("value", "high", "low")] if ratio else None,
        "quality_drop": [drop.get(k) for k in ("value", "low", "high")],
        "size_mb": told["measured"].get("size_mb", {}).get("value"),
        "status": told["status"],
    }


def shown(found: Mapping[str, Any]) -> list[str]:
    """A row of the printed table."""
    fast, drop = found["speedup"], found["quality_drop"]
    return [
        found["rung"],
        f"{fast[0]:.2f} ({fast[1]:.2f}..{fast[2]:.2f})" if fast else "-",
        f"{drop[0]:+.4f} ({drop[1]:+.4f}..{drop[2]:+.4f})" if None not in drop else "-",
        f"{found['size_mb']:.2f}" if found["size_mb"] is not None else "-",
        found["status"],
        found["recipe"],
    ]


def search(spec: Path, out: Path, scratch: Path) -> tuple[float, int]:
    """Run the study into ``out``; its wall time in seconds and its exit code."""
    started = time.perf_counter()
    with (scratch / "stderr.txt").open("wb") as log:
        command = [*AUTOPILOT, "run", str(spec), "--out", str(out), "--fresh"]
        code = subprocess.run(command, cwd=spec.parent, stdout=subprocess.DEVNULL, stderr=log).returncode
    if not (out / "result.json").is_file():
        sys.exit((scratch / "stderr.txt").read_text(encoding="utf-8", errors="replace")[-3000:])
    return time.perf_counter() - started, code


def measure(folder: Path, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Search once, then check the best of each rung."""
    spec, out = study(folder, options, scratch), scratch / "out"
    wall_s, code = search(spec, out, scratch) if not (options.again and out.is_dir()) else (None, None)
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    rows, checked = [], dict[int, dict[str, Any] | None]()
    for rung, barred in RUNGS.items():
        found = None
        for trial in fastest(result["trials"], barred):
            if trial["number"] not in checked:
                told = check(trial, spec, scratch)
                checked[trial["number"]] = row(trial, told) if told and told["measured"] else None
            found = checked[trial["number"]] or found
            if found and found["status"] == "in_budget":
                break
        if found:
            rows.append({"rung": rung, **found})
    best = result.get("best")
    return {
        "workload": folder.name,
        "spec": options.spec,
        "timeout": options.timeout,
        "search_wall_s": wall_s,
        "exit": code,
        "status": result["status"],
        "trials": len(result["trials"]),
        "winner": {"recipe": recipe_text(best), "speedup": best["speedup"]} if best else None,
        "rungs": rows,
    }


def main() -> int:
    """Run and print; 0 where the search found something in budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spec", default="spec.yaml", help="the spec's name in FOLDER")
    parser.add_argument("--timeout", default="25m", help="of the search")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--space", default="train", help="the search space, by name or path")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--keep", type=Path, help="keep the run's folder there")
    parser.add_argument("--again", action="store_true", help="check the trials of the run that --keep kept, no search")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autopilot-ladder-") as temporary:
        scratch = options.keep.resolve() if options.keep else Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        # A cache of its own: what another run built would be found for free.
        os.environ["AUTOPILOT_CACHE_DIR"] = str(scratch / "cache")
        found = measure(options.folder.resolve(), options, scratch)
    took = "" if found["search_wall_s"] is None else f" in {found['search_wall_s']:.0f} s"
    print(f"{found['workload']}: {found['status']}, {found['trials']} trials{took}")
    if found["winner"]:
        speed = found["winner"]["speedup"]
        print(f"winner {speed['value']:.2f}x ({speed['low']:.2f}..{speed['high']:.2f}): {found['winner']['recipe']}")
    header = ["rung", "speedup on test (95%)", "quality drop (95%)", "MB", "verdict", "recipe"]
    print_table([header, *(shown(r) for r in found["rungs"])])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if found["status"] == "in_budget" else 1


if __name__ == "__main__":
    sys.exit(main())
