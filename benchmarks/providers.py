#!/usr/bin/env python3
"""Choosing between providers: one search over all of them against one search over each.

    python benchmarks/providers.py FOLDER [--providers cpu,openvino] [--seconds 100] [--trials 40] [--keep DIR]
                                          [--json FILE]

FOLDER holds a ``spec.yaml`` (its own target, space and search are replaced). Every search gets the same time and at
most the same number of trials; with two providers the three searches and two comparisons take some six minutes. The
winner of a search, or where nothing fits its nearest miss, is then compared with that of the search over all
providers: fresh pairs of processes, interleaved, on the test data. The goal: the winner of all providers is not
certainly slower than that of any one of them, and ``autopilot doctor`` has a reason for every provider that is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autopilot import plugins
from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import Comparison, Served, Standing, compare
from autopilot.data import Split
from autopilot.doctor import usable_providers
from autopilot.observer import NullObserver
from autopilot.recipe import Deployment
from autopilot.search.prepare import prepare
from autopilot.spec import load_spec
from autopilot.target import Target
from autopilot.temporary import temporary_folder
from benchmarks.main_job import AUTOPILOT, print_table, recipe_text, run_child

LIMITS = ChildLimits(wall_s=120.0)


@dataclass(frozen=True, slots=True)
class Winner:
    """What one search chose."""

    served: Served
    status: str
    recipe: str
    trials: int

    @property
    def text(self) -> str:
        return f"{self.recipe} on {self.served.deployment.provider}"


def study(folder: Path, providers: Sequence[str], out: Path, options: argparse.Namespace) -> Path:
    """A copy of ``folder`` whose spec asks for ``providers``; the path of its spec."""
    copy = out / ("-".join(providers))
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("runs", "mlruns"))
    raw: dict[str, Any] = yaml.safe_load((copy / "spec.yaml").read_text(encoding="utf-8"))
    raw["target"] = {**raw.get("target", {}), "providers": list(providers)}
    # The widest of the spaces for the providers in the whole comparison: a search over one must not be the poorer.
    raw["space"] = options.space
    raw["search"] = {**raw.get("search", {}), "trials": options.trials, "timeout": f"{options.seconds:g}s"}
    path = copy / "spec.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


def search(spec: Path) -> Winner | None:
    """Run the study; its winner or nearest miss, None where there is neither."""
    out = spec.parent / "out"
    # Each pays for its own builds and scores: in a shared cache the first search would pay for the later ones.
    os.environ["AUTOPILOT_CACHE_DIR"] = str(spec.parent / "cache")
    run_child([*AUTOPILOT, "run", str(spec), "--out", str(out), "--fresh", "--quiet"], spec.parent)
    found = out / "result.json"
    if not found.is_file():
        sys.exit((spec.parent / "stderr.txt").read_text(encoding="utf-8", errors="replace")[-2000:])
    result: Mapping[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    chosen = result.get("best") or result.get("nearest")
    if not chosen:
        return None
    folder = out / ("best" if result.get("best") else "nearest")
    variant = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
    served = Served(folder / variant["artifact"], Deployment.from_json(variant["deployment"]))
    return Winner(served, str(result["status"]), recipe_text(chosen).replace("-", "as given"), len(result["trials"]))


def test_split(spec: Path) -> Split:
    """The held-back data of the study, prepared as its search prepared them."""
    return prepare(load_spec(spec, plugins.vocabulary()), spec.parent / "split", NullObserver()).splits.test


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The comparisons of one workload, one for each single provider."""
    names = options.providers.split(",")
    rows: list[dict[str, Any]] = []
    with temporary_folder("providers") as scratch:
        out = options.keep.resolve() / folder.name if options.keep else Path(scratch)
        specs = {chosen: study(folder, chosen, out, options) for chosen in [tuple(names), *((n,) for n in names)]}
        winners = {}
        for chosen, spec in specs.items():
            print(f"searching over {' and '.join(chosen)} on {folder.name} …", file=sys.stderr, flush=True)
            winners[chosen] = search(spec)
        both = winners[tuple(names)]
        split = test_split(specs[tuple(names)])
        for name in names:
            one = winners[(name,)]
            found: Comparison | None = None
            if both is not None and one is not None:
                found = compare(both.served, one.served, split=split, limits=LIMITS, cap_s=options.cap_s)
            rows.append(
                {
                    "workload": folder.name,
                    "both": both.text if both else "nothing",
                    "both_status": both.status if both else "",
                    "one": one.text if one else "nothing",
                    "one_status": one.status if one else "",
                    "trials": [both.trials if both else 0, one.trials if one else 0],
                    "comparison": found.to_json() if found else None,
                }
            )
    return rows


def missing() -> dict[str, str]:
    """Providers that can't run here, with the doctor's reason."""
    told = usable_providers(Target.detect(), plugins.providers())
    return {name: str(found["reason"] or "") for name, found in told.items() if not found["usable"]}


def shown(row: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    told = row["comparison"]
    ratio = told["ratio"] if told else None
    text = f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})" if ratio else "-"
    status = [
        f"{row[k]} [{row[f'{k}_status']}, {n} trials]" for k, n in zip(("both", "one"), row["trials"], strict=True)
    ]
    return [str(row["workload"]), *status, text, str(told["verdict"]) if told else "-"]


def main() -> int:
    """Search, compare, print; 0 when no single winner is certainly faster and every missing provider has its reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="with a spec.yaml")
    parser.add_argument("--providers", default="cpu,openvino", help="names with commas between them")
    parser.add_argument("--space", default="openvino", help="the search space, by name or path")
    parser.add_argument("--trials", type=int, default=40, help="of each search, at most")
    # Baseline, control and the second measurement of finalists take half of that on a small model.
    parser.add_argument("--seconds", type=float, default=100.0, help="of each search")
    parser.add_argument("--cap-s", type=float, default=30.0, help="seconds a comparison may take")
    parser.add_argument("--keep", type=Path, help="an empty folder in which the searches stay")
    parser.add_argument("--json", type=Path, help="also write the comparisons there")
    options = parser.parse_args()
    rows = measure(options.folder.resolve(), options)
    unexplained = [name for name, told in missing().items() if not told]
    header = ["workload", "winner of all providers", "winner of one", "latency, all over one (95%)", "all is"]
    print_table([header, *(shown(row) for row in rows)])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    slower = any(row["comparison"] and row["comparison"]["verdict"] == Standing.SLOWER.value for row in rows)
    for name, reason in missing().items():
        print(f"{name} is missing: {reason or 'NO REASON TOLD'}")
    return 1 if slower or unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
