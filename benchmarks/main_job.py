#!/usr/bin/env python3
"""Run the main job on whole workloads and print one table: verdict, speedup, wall time, memory.

    python benchmarks/main_job.py [FOLDER ...] [--trials N] [--timeout 4m]

A FOLDER holds a ``spec.yaml``. With none given: the workloads beside this checkout if there are any,
else the example ``examples/digits``. Every run starts anew in a temporary folder with its own tracking store.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("autopilot")
# The installed command; from a bare checkout on PYTHONPATH, the same as a module.
AUTOPILOT = [str(SCRIPT)] if SCRIPT.is_file() else [sys.executable, "-m", "autopilot"]
HELP_RUNS = 10


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child process ended.

    ``peak_rss_mb`` is its own, in 10^6 bytes, not that of its children; NaN where the system doesn't tell.
    """

    exit_code: int
    wall_s: float
    peak_rss_mb: float


def run_child(command: Sequence[str], folder: Path) -> Ended:
    """Run ``command`` in ``folder`` with its output in stdout.txt and stderr.txt there."""
    started = time.perf_counter()
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        # wait4 would give the largest of the child and all its own children, builds among them. The
        # kernel's high-water mark of the one process only grows, so reading it now and then is enough.
        peak = float("nan")
        while child.poll() is None:
            peak = high_water_mb(child.pid, peak)
            time.sleep(0.25 if time.perf_counter() - started > 2 else 0.01)
    return Ended(child.returncode, time.perf_counter() - started, peak)


def high_water_mb(pid: int, before: float) -> float:
    """The process's VmHWM in 10^6 bytes, or ``before`` where it can't be read any more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return before


def workload_folders(given: Sequence[str]) -> list[Path]:
    """The folders to run, each with a spec.yaml."""
    if given:
        folders = [Path(g).resolve() for g in given]
    else:
        folders = sorted(p.parent for p in (ROOT.parent / "shared" / "workloads" / "dev").glob("*/spec.yaml"))
        folders = folders or [ROOT / "examples" / "digits"]
    missing = [str(f) for f in folders if not (f / "spec.yaml").is_file()]
    if missing:
        sys.exit(f"no spec.yaml in {', '.join(missing)}")
    return folders


def interval(figure: dict[str, Any] | None) -> str:
    """``2.51 (2.44..2.58)``, or a dash where there is none."""
    if not figure or figure.get("value") is None:
        return "-"
    bounds = "" if figure.get("low") is None else f" ({figure['low']:.2f}..{figure['high']:.2f})"
    return f"{figure['value']:.2f}{bounds}"


def recipe_text(variant: dict[str, Any] | None) -> str:
    """The techniques of a variant, in order."""
    steps = (variant or {}).get("recipe") or []
    return " + ".join(str(step["technique"]) for step in steps) or "-"


def measure(folder: Path, options: Sequence[str]) -> list[str]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(prefix="autopilot-bench-") as scratch:
        out = Path(scratch) / "out"
        command = [*AUTOPILOT, "run", str(folder / "spec.yaml"), "--out", str(out), "--fresh", "--quiet", *options]
        ended = run_child(command, Path(scratch))
        found = out / "result.json"
        result = json.loads(found.read_text(encoding="utf-8")) if found.is_file() else {}
        if not result:
            sys.stderr.write((Path(scratch) / "stderr.txt").read_text(encoding="utf-8", errors="replace")[-2000:])
    trials = result.get("trials", [])
    complete = sum(trial["state"] == "complete" for trial in trials)
    best = result.get("best")
    return [
        folder.name,
        str(result.get("status", "no result")),
        str(ended.exit_code),
        interval(best.get("speedup") if best else None),
        recipe_text(best),
        f"{ended.wall_s:.0f}",
        f"{len(trials)} ({complete})",
        f"{ended.peak_rss_mb:.0f}",
    ]


def help_seconds() -> float:
    """Median wall time of ``autopilot --help``, in seconds."""
    times = []
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(HELP_RUNS):
            times.append(run_child([*AUTOPILOT, "--help"], Path(scratch)).wall_s)
    return statistics.median(times)


def print_table(rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)


def main() -> int:
    """Run everything; 0 when every workload gave a verdict (exit code 0, 3 or 4)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", help="folders with a spec.yaml")
    parser.add_argument("--trials", help="passed on to autopilot run")
    parser.add_argument("--timeout", help="passed on to autopilot run")
    given = parser.parse_args()
    options = [part for name in ("trials", "timeout") if (v := getattr(given, name)) for part in (f"--{name}", v)]

    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load average {load:.1f} at the start: something else is running, figures will be noisy")
    print(f"autopilot --help: {help_seconds():.2f} s (median of {HELP_RUNS})", flush=True)
    header = ["workload", "status", "exit", "speedup (95%)", "winner", "wall_s", "trials (complete)", "parent_peak_mb"]
    rows = [header]
    for folder in workload_folders(given.folders):
        print(f"running {folder.name} …", file=sys.stderr, flush=True)
        rows.append(measure(folder, options))
    print_table(rows)
    return 0 if all(row[2] in ("0", "3", "4") for row in rows[1:]) else 1


if __name__ == "__main__":
    sys.exit(main())
