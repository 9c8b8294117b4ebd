#!/usr/bin/env python3
"""A model against itself: how often a comparison sees a difference that isn't there.

    python benchmarks/measurement/same.py [--runs N] [--json FILE]

``autopilot.bench.compare.compare`` on one small model, each time in fresh processes. The goal is at most 5% of 40.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from autopilot.bench.child import ChildLimits
from autopilot.bench.compare import Standing, compare
from autopilot.temporary import temporary_folder
from benchmarks.measurement.figure import Figure, arguments, finish
from benchmarks.measurement.models import planted


def main() -> int:
    """Compare, print each result; 0 when false alarms are rare enough."""
    options = arguments(__doc__, runs=40)
    found = []
    with temporary_folder("same") as name:
        pair = planted(Path(name))
        for number in range(options.runs):
            result = compare(pair.plain, pair.plain, split=pair.split, limits=ChildLimits(60.0))
            found.append(result)
            ratio = result.ratio
            print(
                f"{number + 1:3d}  {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f})  {result.verdict}  "
                f"{result.rounds} rounds, {result.seconds:.1f} s",
                flush=True,
            )
    alarms = sum(result.verdict is not Standing.TIE for result in found)
    seconds = sum(result.seconds for result in found) / len(found)
    detail = f"{alarms} of {len(found)}, {seconds:.1f} s each"
    return finish([Figure("A/A false alarms", 100 * alarms / len(found), 5.0, "%", detail=detail)], options.json)


if __name__ == "__main__":
    sys.exit(main())
