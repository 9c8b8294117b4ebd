#!/usr/bin/env python3
"""How exactly the load generator keeps to its schedule on this machine, and what open-loop serving costs.

    python benchmarks/measurement/generator.py [--rate 2000] [--seconds 20]

The service is trivially cheap (it takes requests from the queue and does nothing), so that what is late is
the generator's or the machine's. The goal is 99% of the requests sent within 0.5 ms of their schedule.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from autopilot.bench.arrivals import Load, window
from autopilot.bench.batching import Batcher, Window
from autopilot.bench.cores import server_cores, usable_cores
from autopilot.bench.sending import Generator
from autopilot.spec import Traffic

GOAL_MS = 0.5
GOAL_SHARE = 0.99
# One window's schedule travels as one message.
WINDOW_S = 2.0


def served(queue: Batcher, generator: Generator, due_s: Any, number: int) -> tuple[Any, Any]:
    """Lateness of sending and the whole latency of each request of one window, in ms."""
    start_ns = time.monotonic_ns() + 50_000_000
    due_ns = start_ns + np.round(due_s * 1e9).astype(np.int64)
    stop_ns = start_ns + round(WINDOW_S * 1e9)
    drain_ns = stop_ns + 1_000_000_000
    generator.start(queue.path, due_ns.tolist(), number, end_ns=stop_ns, drain_ns=drain_ns)
    reply = queue.serve(Window(number, start_ns, stop_ns, drain_ns))
    done = np.zeros_like(due_ns)
    for numbers, _, end in reply["runs"]:
        done[numbers] = end
    return (np.array(generator.sent_ns()) - due_ns) / 1e6, (done - due_ns) / 1e6


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2000.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to send")
    told = parser.parse_args()
    cores, here = server_cores(1), usable_cores()
    load = Load.of(Traffic("server", told.rate))
    lags, latencies = [], []
    with tempfile.TemporaryDirectory() as folder, Generator(cores) as generator:
        if cores:
            os.sched_setaffinity(0, cores)  # this process is the service
        queue = Batcher(lambda i, n: None, Path(folder), batch=1, max_delay_s=0.0, instances=1)
        for number in range(max(1, round(told.seconds / WINDOW_S))):
            due_s = window(load, number, window_s=WINDOW_S, ramp_s=0.0, seed=0)
            lag, latency = served(queue, generator, due_s, number)
            lags.append(lag)
            latencies.append(latency)
    lag, latency = np.concatenate(lags), np.concatenate(latencies)
    within = float(np.mean(lag <= GOAL_MS))
    own = "a core of its own" if generator.spin_ns else "no core of its own"
    print(f"{lag.size} requests at {told.rate:g} a second, {here} cores, load {os.getloadavg()[0]:.1f},")
    print(f"the generator on {own}")
    for name, values in (("sent late by", lag), ("latency", latency)):
        said = ", ".join(f"p{q:g} {np.percentile(values, q):.3f}" for q in (50, 90, 99, 99.9))
        print(f"{name:13} {said}, at most {values.max():.3f} ms")
    met = "met" if within >= GOAL_SHARE else "missed"
    print(f"within {GOAL_MS} ms of the schedule: {within:.2%} (goal {GOAL_SHARE:.0%}: {met})")


if __name__ == "__main__":
    main()
