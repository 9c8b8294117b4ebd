#!/usr/bin/env python3
"""Kill -9 a run at random moments (the parent, a child, both in turn), start it again until it ends, and count losses.

    python benchmarks/search/kills.py [FOLDER] [--kills 30] [--trials 12] [--seed 0] [--json FILE]

FOLDER holds a spec.yaml; with none given, the example ``examples/digits``. It is copied, run once undisturbed, and
once under kills, each at a random moment within a third of the undisturbed time after the last one. Goals: no finished
trial lost, none run twice, and a winner that is the same or can't be told from the undisturbed one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.measurement.figure import Figure, finish  # noqa: E402
from tests.integration.kill_support import KINDS, problems, run_under_kills  # noqa: E402


def main() -> int:
    """Run both; 0 when all goals were reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "examples" / "digits")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append each figure to FILE as a line of JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autopilot-bench-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        child = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{name}/mlruns/mlflow.db"}
        for part in ("quiet", "killed"):
            copied(given.folder.resolve(), scratch / part, given.trials)
        begun = time.perf_counter()
        quiet = run_under_kills(scratch / "quiet", [], within_s=1.0, seed=0, environment=child)
        quiet_s = time.perf_counter() - begun
        begun = time.perf_counter()
        kinds = [KINDS[i % len(KINDS)] for i in range(given.kills)]
        found = run_under_kills(scratch / "killed", kinds, within_s=quiet_s / 3, seed=given.seed, environment=child)
        killed_s = time.perf_counter() - begun
    for text in problems(found, given.trials):
        print(text)
    said = ", ".join(f"{n} of {kind}" for kind, n in found.kills.items())
    print(f"undisturbed {quiet_s:.0f} s; under {sum(found.kills.values())} kills ({said}) {killed_s:.0f} s")
    print(f"started {found.starts} times; winners {winner(quiet.result)} and {winner(found.result)}")
    figures = [
        Figure("finished trials lost", len(found.lost), 0),
        Figure("finished trials run again", len(found.changed), 0),
        Figure("trials missing or twice at the end", len(problems(found, given.trials)), 0),
        Figure("winner the same or tied", float(tied(quiet.result, found.result)), 1, at_least=True),
    ]
    return finish(figures, given.json)


def copied(folder: Path, to: Path, trials: int) -> None:
    """The study in ``folder``, with another number of trials and time enough for many starts."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("runs", "mlruns"))
    spec = yaml.safe_load((to / "spec.yaml").read_text(encoding="utf-8"))
    spec["search"] = {**spec.get("search", {}), "trials": trials, "timeout": "60m"}
    (to / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")


def winner(result: Mapping[str, Any]) -> str:
    """What was found, in a few words."""
    best = result.get("best")
    if not best:
        return str(result.get("status", "no result"))
    steps = " + ".join(step["technique"] for step in best["recipe"]) or "the model as given"
    figure = best["speedup"]
    return f"{steps} at {figure['value']:.3g} ({figure['low']:.3g}..{figure['high']:.3g})"


def tied(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both found the same variant, or ones whose speedups' intervals overlap."""
    first, second = one.get("best"), other.get("best")
    if not first or not second:
        return not first and not second and one.get("status") == other.get("status")
    a, b = first["speedup"], second["speedup"]
    return bool(first["id"] == second["id"] or (a["low"] <= b["high"] and b["low"] <= a["high"]))


if __name__ == "__main__":
    sys.exit(main())
