#!/usr/bin/env python3
"""A planted slowdown of 5%: found, and measured right, with the other core idle and with it busy.

    python benchmarks/measurement/slowdown.py [--runs N] [--json FILE]

Two models of 40 and 42 equal layers: 5% more work, so 1.05 less what a request costs beside its layers. The true
ratio is taken from a long reference first: ``compare`` over 24 fresh pairs of processes with the machine idle.
The goals: the slower one is called slower in at least 95% of the runs, and its ratio is within 2 points.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import MOST_ROUNDS, Comparison, Standing, compare
from autopilot.temporary import temporary_folder
from benchmarks.measurement.figure import Figure, arguments, finish
from benchmarks.measurement.models import LAYERS, SLOWER_LAYERS, Pair, busy_other_core, planted

POINTS = 0.02
LIMITS = ChildLimits(60.0)


def main() -> int:
    """Measure the reference, then both halves; 0 when all goals are reached."""
    options = arguments(__doc__, runs=40, rounds=MOST_ROUNDS)
    figures = []
    with temporary_folder("slowdown") as name:
        pair = planted(Path(name))
        reference = compare(pair.slower, pair.plain, split=pair.split, limits=LIMITS, rounds=options.rounds, cap_s=1e3)
        true = reference.ratio
        print(
            f"reference: {true.value:.4f} ({true.low:.4f} to {true.high:.4f}) over {reference.rounds} pairs of "
            f"processes; by count of layers {SLOWER_LAYERS / LAYERS:.4f}",
            flush=True,
        )
        for label, load in (("other core idle", contextlib.nullcontext(True)), ("other core busy", busy_other_core())):
            with load as possible:
                if not possible:
                    print(f"{label}: there is no other core to load; left out")
                    continue
                found = [one(pair) for _ in range(options.runs)]
            figures += judged(label, found, true.value)
    return finish(figures, options.json)


def one(pair: Pair) -> Comparison:
    """One comparison of the slower model with the plain one."""
    return compare(pair.slower, pair.plain, split=pair.split, limits=LIMITS)


def judged(label: str, found: list[Comparison], true: float) -> list[Figure]:
    """The share found slower, and the share measured to two points, of all runs."""
    slower = sum(f.verdict is Standing.SLOWER for f in found)
    right = sum(abs(f.ratio.value - true) <= POINTS for f in found)
    ratios = sorted(f.ratio.value for f in found)
    seconds = sum(f.seconds for f in found) / len(found)
    detail = f"{slower} of {len(found)}, {seconds:.1f} s each"
    spread = f"ratios {ratios[0]:.4f} to {ratios[-1]:.4f}, true {true:.4f}"
    return [
        Figure(f"5% found, {label}", 100 * slower / len(found), 95.0, "%", at_least=True, detail=detail),
        Figure(f"5% within 2 points, {label}", 100 * right / len(found), 95.0, "%", at_least=True, detail=spread),
    ]


if __name__ == "__main__":
    sys.exit(main())
