#!/usr/bin/env python3
"""Time per verdict, as a share of a fixed run of 30 s.

    python benchmarks/measurement/verdict_time.py [--runs N] [--json FILE]

A small model served beside itself, as finalists are verified: the search's own rule stops the pass. Limits on the
median relative to the baseline are 20% or 40% off (clear) or 2% (unclear), on either side. Measuring counts, starting
doesn't. The goal is at most 0.4 of 30 s for the clear ones, with the right verdict each time.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import Server, measure_latency
from autopilot.budget import Budget, Judgement, Limit
from autopilot.meters.latency import METER
from autopilot.profile import LatencyReading, Measurement, Profile
from autopilot.search.decider import Decider
from autopilot.search.outcome import VERIFYING
from autopilot.temporary import temporary_folder
from benchmarks.measurement.figure import Figure, arguments, finish
from benchmarks.measurement.models import planted

AXIS = "latency_p50_ms"
FIXED_S = 30.0
CLEAR = {1.2: Judgement.IN, 1.4: Judgement.IN, 0.8: Judgement.OUT, 0.6: Judgement.OUT}
UNCLEAR = {1.02: Judgement.IN, 0.98: Judgement.OUT}
# A pass ends when its limit is decided and the objective is known to 1%, or at the cap of 30 s.
EFFORT = replace(VERIFYING, cap_s=FIXED_S)


def main() -> int:
    """Print each verdict and the shares; 0 when clear ones are quick and right."""
    options = arguments(__doc__, runs=2)
    shares: dict[bool, list[float]] = {True: [], False: []}
    wrong = 0
    with temporary_folder("verdict") as name:
        pair = planted(Path(name))
        start = (pair.plain.artifact, pair.plain.deployment)
        more = {"split": pair.split, "limits": ChildLimits(60.0)}
        for bound, right in [*CLEAR.items(), *UNCLEAR.items()] * options.runs:
            with Server.start(*start, **more) as a, Server.start(*start, **more) as b:
                a.warm_up()
                b.warm_up()
                seconds, verdict = judged(a, b, Budget((Limit(AXIS, bound, relative=True),)))
            clear = bound in CLEAR
            shares[clear].append(seconds / FIXED_S)
            wrong += clear and verdict is not right
            print(f"limit {bound:.0%} of itself: {verdict} after {seconds:5.2f} s, {seconds / FIXED_S:.3f}", flush=True)
    unclear = f"unclear (2%): {statistics.mean(shares[False]):.3f}; wrong verdicts of clear ones are counted apart"
    return finish(
        [
            Figure("time per clear verdict over 30 s", statistics.mean(shares[True]), 0.4, detail=unclear),
            Figure("wrong clear verdicts", wrong, 0, detail=f"of {len(shares[True])}"),
        ],
        options.json,
    )


def judged(a: Server, b: Server, budget: Budget) -> tuple[float, Judgement]:
    """Seconds until the rule stopped the pass, and the verdict then."""

    def known(reading: LatencyReading, beside: LatencyReading | None) -> dict[str, Measurement]:
        return {AXIS: METER.summarise(Profile("itself", latency=reading, baseline_latency=beside), AXIS)}

    started = time.perf_counter()
    readings = measure_latency(a, b, decided=Decider(known, budget, AXIS, EFFORT), cap_s=EFFORT.cap_s)
    seconds = time.perf_counter() - started
    return seconds, budget.judge(known(*readings)).overall


if __name__ == "__main__":
    sys.exit(main())
