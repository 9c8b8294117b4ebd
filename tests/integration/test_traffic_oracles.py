"""Open-loop measurements held against what is known: a queue computed exactly, queueing theory, MLPerf LoadGen.

A service that sleeps stands for the model, so that generator, queue, batching and clocks are the real ones.
These tests compare times, with room for a busy machine: only a mistake of method breaks them each time.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from autopilot import stats
from autopilot.bench.arrivals import Load, window
from autopilot.bench.launcher import Server
from autopilot.bench.sending import Generator
from autopilot.bench.traffic import measure_traffic
from autopilot.profile import Floats, LatencyReading
from autopilot.spec import Traffic
from tests.integration.bench_support import LIMITS, ONE_THREAD, dense
from tests.integration.test_traffic import split
from tests.queueing import mean_wait_s, sojourn_s

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SERVICE_S = 0.004
RATE_RPS = 125.0  # half of what the service can do
# One disturbance of a busy machine spoils a comparison; a wrong method spoils all of them. A quiet one takes the first.
ATTEMPTS = 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One instance that takes some 4 ms a request, whatever the machine."""
    model = dense(tmp_path / "m.onnx")
    with Server.start(model, ONE_THREAD, split=split(tmp_path, service_s=SERVICE_S), limits=LIMITS) as started:
        started.warm_up(0.3)
        yield started


def one_window(server: Server, due_s: Floats, number: int) -> tuple[Floats, Floats, Floats]:
    """Latency, service time and lateness of each request of one long window, in seconds; every one is answered.

    Lateness: from when it could begin, being due and the one before it done, to when it began.
    """
    start_ns = time.monotonic_ns() + 100_000_000
    due_ns = start_ns + np.round(due_s * 1e9).astype(np.int64)
    stop_ns = int(due_ns[-1]) + 1
    times = {"stop_ns": stop_ns, "drain_ns": stop_ns + 5_000_000_000}
    with Generator(server.cores) as generator:
        queue = server.open_traffic()
        generator.start(queue, due_ns.tolist(), number, end_ns=stop_ns, drain_ns=times["drain_ns"])
        reply = server.window(number, count_ns=start_ns, **times)
        generator.sent_ns()
    begun_ns, ended_ns = np.zeros_like(due_ns), np.zeros_like(due_ns)
    for numbers, start, end in reply["runs"]:
        begun_ns[numbers], ended_ns[numbers] = start, end
    could_ns = np.maximum(due_ns, np.concatenate([due_ns[:1], ended_ns[:-1]]))
    return (ended_ns - due_ns) / 1e9, (ended_ns - begun_ns) / 1e9, (begun_ns - could_ns) / 1e9


@contextmanager
def sleeper(cores: Collection[int]) -> Iterator[list[float]]:
    """How late a thread that does nothing but sleep wakes up on ``cores``, in seconds: what the machine does to any."""
    late_s: list[float] = []
    ended = threading.Event()

    def sleep() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)  # this thread alone
        while not ended.is_set():
            due_s = time.monotonic() + SERVICE_S
            time.sleep(SERVICE_S)
            late_s.append(time.monotonic() - due_s)

    thread = threading.Thread(target=sleep)
    thread.start()
    try:
        yield late_s
    finally:
        ended.set()
        thread.join()


def test_latencies_are_those_of_the_queue_on_the_same_schedule(server: Server) -> None:
    """Never shorter than Lindley's recursion gives for the same times, and as long where no request begins late.

    A request that the machine holds up delays those behind it, which is no mistake of the method: what is looked at is
    how late each begins by itself. Up to a tenth of them may be held up for long, and all as long as the machine holds
    up three who sleep: generator, queue and server wait for each other.
    """
    load = Load.of(Traffic("server", RATE_RPS))
    beyond_s: list[float] = []
    for attempt in range(ATTEMPTS):
        due_s = window(load, attempt, window_s=4.0, ramp_s=0.0, seed=0)
        with sleeper(server.cores) as slept_late_s:
            latency_s, service_s, started_late_s = one_window(server, due_s, attempt + 1)
        assert np.all(latency_s >= sojourn_s(due_s, service_s) - 1e-6)
        assert np.all(started_late_s >= -1e-6)
        beyond_s.append(float(np.percentile(started_late_s, 90) - 3 * np.percentile(slept_late_s, 90)))
        if beyond_s[-1] < 0.25 * SERVICE_S:
            break

    assert min(beyond_s) < 0.25 * SERVICE_S, beyond_s


def test_mean_wait_is_that_of_a_known_queue(server: Server) -> None:
    """M/D/1: Poisson arrivals, constant service; the wait is within the interval, room for waking up added."""
    load = Load.of(Traffic("server", RATE_RPS))
    misses = []
    for attempt in range(ATTEMPTS):
        reading, _ = measure_traffic(server, None, load, decided=lambda a, b: False, cap_s=8.0, seed=attempt)
        assert reading.traffic is not None
        service_s = float(np.mean(reading.traffic.service_s))
        expected_s = service_s + mean_wait_s(RATE_RPS * service_s, service_s)
        found = stats.mean_interval(reading.latency_s, reading.block, 0.99)
        misses.append(not found.low - 0.1 * SERVICE_S <= expected_s <= found.high + 0.1 * SERVICE_S)
        if not misses[-1]:
            break

    assert not all(misses)


@pytest.mark.skipif(
    importlib.util.find_spec("mlperf_loadgen") is None,
    reason="mlcommons-loadgen is not installed: pip install mlcommons-loadgen",
)
def test_percentiles_are_loadgens_on_the_same_service(server: Server, tmp_path: Path) -> None:
    """MLPerf LoadGen's server scenario and this generator, as far apart as their intervals allow."""
    gaps = []
    for attempt in range(ATTEMPTS):
        load = Load.of(Traffic("server", RATE_RPS))
        reading, _ = measure_traffic(server, None, load, decided=lambda a, b: False, cap_s=9.0, seed=attempt)
        assert reading.traffic is not None
        # The sleep, and what else our service does; not what held some of them up, which holds up theirs as well.
        service_s = float(np.median(reading.traffic.service_s))
        theirs = _loadgen(tmp_path / f"loadgen-{attempt}", service_s, queries=1000)
        gaps.append([_gap(reading, theirs[q], q) for q in (50.0, 90.0, 95.0)])
        if np.min(gaps, axis=0).max() <= 1:
            break

    assert np.min(gaps, axis=0).max() <= 1, gaps


def _loadgen(folder: Path, service_s: float, queries: int) -> dict[float, float]:
    """LoadGen's percentiles in seconds."""
    folder.mkdir()
    script = Path(__file__).with_name("loadgen_oracle.py")
    command = [sys.executable, str(script), str(folder), str(RATE_RPS), str(service_s), str(queries)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return {float(q): float(seconds) for q, seconds in json.loads(done.stdout.splitlines()[-1]).items()}


def _gap(reading: LatencyReading, theirs_s: float, q: float) -> float:
    """How far apart two estimates are, as a share of what their intervals allow.

    Both come from about as many requests, so theirs is taken to be as wide; half a millisecond is left
    for two ways to wake a sleeper up.
    """
    found = stats.percentile_interval(reading.latency_s, reading.block, q)
    width = found.high - found.value if theirs_s > found.value else found.value - found.low
    return abs(theirs_s - found.value) / (math.sqrt(2) * width + 0.5e-3)
