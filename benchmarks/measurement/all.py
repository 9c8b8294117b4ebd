#!/usr/bin/env python3
"""Run every benchmark of measuring and print one table: what was reached, and what each took.

    python benchmarks/measurement/all.py [--only NAME ...] [--json FILE]

A benchmark is a script of this folder with a ``main``; it prints its figures and exits with 0 when all its goals
were reached. They run one after the other, so that none disturbs another: leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
_HAS_MAIN = re.compile(r"^def main\(", re.MULTILINE)
# The longest takes some six minutes; one that hangs must not hold up the rest.
CAP_S = 900.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How one script ended. ``lines``: what it printed about goals, else its last line."""

    name: str
    reached: bool
    seconds: float
    lines: tuple[str, ...]


def main() -> int:
    """Run the scripts; 0 when all reached their goals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these scripts alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a line of JSON for each script to FILE")
    options = parser.parse_args()
    found = [run(path) for path in scripts() if not options.only or path.stem in options.only]
    if options.json is not None:
        with options.json.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(asdict(ran)) + "\n" for ran in found)
    print("\n" + table(found))
    return 0 if all(ran.reached for ran in found) else 1


def scripts() -> list[Path]:
    """The scripts of this folder that have a ``main``, but for this one."""
    paths = sorted(path for path in FOLDER.glob("*.py") if path.stem != "all")
    return [path for path in paths if _HAS_MAIN.search(path.read_text(encoding="utf-8"))]


def run(path: Path) -> Ran:
    """Run one script, passing on what it prints."""
    print(f"== {path.stem}", flush=True)
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=CAP_S
        )
        output, reached = done.stdout, done.returncode == 0
    except subprocess.TimeoutExpired:
        output, reached = f"ended after {CAP_S:g} s without an answer", False
    print(output, flush=True)
    lines = [line for line in output.splitlines() if line.strip()]
    goals = [line for line in lines if "goal" in line] or lines[-1:]
    return Ran(path.stem, reached, time.perf_counter() - started, tuple(goals))


def table(found: list[Ran]) -> str:
    """One line a figure."""
    rows = [f"{'benchmark':14s} {'goals':12s} {'time':>6s}  figures"]
    for ran in found:
        state = "reached" if ran.reached else "NOT REACHED"
        first, *rest = ran.lines or ("(printed nothing)",)
        rows.append(f"{ran.name:14s} {state:12s} {ran.seconds:5.0f}s  {first}")
        rows += [" " * 36 + line for line in rest]
    rows.append(f"{'all':14s} {'':12s} {sum(ran.seconds for ran in found):5.0f}s")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
