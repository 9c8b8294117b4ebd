"""Scheduled traffic on live servers: windows of requests, the candidate's beside the baseline's."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from autopilot.bench.arrivals import Load, window
from autopilot.bench.launcher import Decided, orders
from autopilot.bench.live import Server
from autopilot.bench.sending import Generator
from autopilot.profile import Floats, Ints, LatencyReading, TrafficReading
from autopilot.recipe import Deployment

# Server and generator have so long to get ready before the first request of a window.
_LEAD_S = 0.03
# The queue fills to its usual length before requests count: a part of the window, some requests long.
_RAMP_S = 0.1
_RAMP_SHARE = 0.25
_RAMP_RUNS = 5
# How long answers are waited for after the last request was due.
_DRAIN_S = 0.5
_DRAIN_RUNS = 4
# Intervals take windows as their unit.
MIN_WINDOWS = 6
_LOOK_EVERY = 1.25


class Paced(Protocol):
    """What the length of a window follows from: a server that was warmed up, or what is known of one."""

    @property
    def request_s(self) -> float | None: ...

    @property
    def deployment(self) -> Deployment: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The lengths of a window's parts, the same for all servers that are compared, in seconds."""

    window_s: float
    ramp_s: float
    drain_s: float

    @classmethod
    def of(cls, load: Load, servers: Sequence[Paced]) -> Plan:
        """Parts that suit the slowest of ``servers``, which were warmed up."""
        run_s = max((s.request_s or 0.0) + s.deployment.max_delay_ms / 1e3 for s in servers)
        window_s = load.window_s
        ramp_s = max(_RAMP_S, _RAMP_SHARE * window_s, _RAMP_RUNS * run_s)
        return cls(window_s, ramp_s, max(_DRAIN_S, _DRAIN_RUNS * run_s))

    @property
    def spent_s(self) -> float:
        """About how long one window takes."""
        return self.window_s + self.ramp_s + _LEAD_S


@dataclass(frozen=True, slots=True)
class _Window:
    """What one window gave, its ramp left out.

    latency_s, send_lag_s: float64, shape (n_requests,). is_dropped, is_unanswered: bool, the same shape.
    queue_s, service_s: float64, shape (n_answered,).
    sizes: int64, shape (n_runs,), how many requests each run held; runs_s: float64, how long it took.
    """

    latency_s: Floats
    send_lag_s: Floats
    is_dropped: np.ndarray
    is_unanswered: np.ndarray
    queue_s: Floats
    service_s: Floats
    sizes: np.ndarray
    runs_s: Floats
    answered: int
    busy_s: float
    cpu_s: float


class _Collector:
    """Windows of one server, gathered into a LatencyReading with its TrafficReading."""

    def __init__(self, server: Server, load: Load, plan: Plan, *, fixed: bool) -> None:
        self._server = server
        self._load = load
        self._plan = plan
        self._queue: Path = server.open_traffic(fixed=fixed)
        self._windows: list[_Window] = []

    def run(self, generator: Generator, due_s: Floats, number: int) -> None:
        """Serve one window of requests that are due at ``due_s``."""
        plan = self._plan
        count_ns = time.monotonic_ns() + round((_LEAD_S + plan.ramp_s) * 1e9)
        stop_ns = count_ns + round(plan.window_s * 1e9)
        drain_ns = stop_ns + round(plan.drain_s * 1e9)
        due_ns = count_ns + np.round(due_s * 1e9).astype(np.int64)
        end_ns = stop_ns + round(self._server.deployment.max_delay_ms * 1e6)
        generator.start(self._queue, due_ns.tolist(), number, end_ns=end_ns, drain_ns=drain_ns)
        reply = self._server.window(number, count_ns=count_ns, stop_ns=stop_ns, drain_ns=drain_ns)
        sent_ns = np.array(generator.sent_ns(), dtype=np.int64)
        self._windows.append(
            gathered(
                due_ns, sent_ns, reply["runs"], times_ns=(count_ns, stop_ns, drain_ns), cpu_s=reply["cpu_ns"] / 1e9
            )
        )
        self._server.settle()

    def reading(self) -> LatencyReading:
        windows, plan = self._windows, self._plan
        counts = [w.latency_s.size for w in windows]
        return LatencyReading(
            latency_s=np.concatenate([w.latency_s for w in windows]),
            block=np.repeat(np.arange(len(windows), dtype=np.int32), counts),
            block_wall_s=np.full(len(windows), plan.window_s),
            block_cpu_s=np.array([w.cpu_s for w in windows]),
            traffic=self._traffic(),
        )

    def _traffic(self) -> TrafficReading:
        windows = self._windows
        lost = np.concatenate([w.latency_s[w.is_dropped | w.is_unanswered] for w in windows])
        return TrafficReading(
            rate_rps=self._load.rate_rps,
            window_s=self._plan.window_s,
            instances=self._server.deployment.instances,
            batch=self._server.deployment.batch,
            offered=_ints([w.latency_s.size for w in windows]),
            answered=_ints([w.answered for w in windows]),
            dropped=_ints([int(w.is_dropped.sum()) for w in windows]),
            unanswered=_ints([int(w.is_unanswered.sum()) for w in windows]),
            busy_s=np.array([w.busy_s for w in windows]),
            batch_sizes=np.bincount(np.concatenate([w.sizes for w in windows]), minlength=1).astype(np.int32),
            full_runs_s=np.concatenate([w.runs_s[w.sizes == self._server.deployment.batch] for w in windows]),
            queue_s=np.concatenate([w.queue_s for w in windows]),
            service_s=np.concatenate([w.service_s for w in windows]),
            send_lag_s=np.concatenate([w.send_lag_s for w in windows]),
            lost_from_s=float(lost.min(initial=math.inf)),
        )


def _ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int32)


def gathered(
    due_ns: np.ndarray, sent_ns: np.ndarray, runs: list[Any], *, times_ns: tuple[int, int, int], cpu_s: float
) -> _Window:
    """What one window gave, from what generator and server wrote down.

    Args:
        due_ns, sent_ns: int64, shape (n,); sent -1 for a request that the full queue refused.
        runs: (numbers of the requests in a run, start ns, end ns) of each run.
        times_ns: when requests begin to count, when no more are due, when waiting for answers ended.
        cpu_s: processor seconds while requests counted.
    """
    count_ns, stop_ns, drain_ns = times_ns
    start_ns, done_ns = np.zeros_like(due_ns), np.zeros_like(due_ns)
    sizes, runs_ns, busy_ns = [], [], 0
    for numbers, start, end in runs:
        start_ns[numbers], done_ns[numbers] = start, end
        busy_ns += max(0, min(end, stop_ns) - max(start, count_ns))
        if start >= count_ns:
            sizes.append(len(numbers))
            runs_ns.append(end - start)
    counts = due_ns >= count_ns
    is_dropped, is_answered = sent_ns < 0, done_ns > 0
    latency_ns = np.where(is_answered, done_ns, drain_ns) - due_ns
    timed = counts & is_answered
    return _Window(
        latency_s=latency_ns[counts] / 1e9,
        send_lag_s=(sent_ns - due_ns)[counts & ~is_dropped] / 1e9,
        is_dropped=is_dropped[counts],
        is_unanswered=(~is_answered & ~is_dropped)[counts],
        queue_s=(start_ns - sent_ns)[timed] / 1e9,
        service_s=(done_ns - start_ns)[timed] / 1e9,
        sizes=np.array(sizes, dtype=np.int64),
        runs_s=np.array(runs_ns, dtype=np.float64) / 1e9,
        answered=int(((done_ns >= count_ns) & (done_ns < stop_ns)).sum()),
        busy_s=busy_ns / 1e9,
        cpu_s=cpu_s,
    )


def measure_traffic(
    candidate: Server,
    baseline: Server | None,
    load: Load,
    *,
    decided: Decided,
    cap_s: float,
    min_s: float = 0.0,
    seed: int = 0,
    fixed: bool = False,
) -> tuple[LatencyReading, LatencyReading | None]:
    """Windows of ``load`` on ``candidate``, interleaved with ``baseline``'s where there is one.

    Both get the same requests at the same times. A server that can't keep up is measured like any
    other: what it doesn't answer is counted, and no window outlives its drain by more than one run.

    Args:
        candidate: a live server.
        baseline: another live server bound to the same cores, or None.
        load: when requests come.
        decided: called with the readings so far now and then; True ends the measurement.
        cap_s: seconds after which it ends anyway (two windows are always served).
        min_s: seconds before ``decided`` is asked at all.
        seed: of the schedule.
        fixed: the models run whole batches only.

    Raises:
        WorkerDied: a server or the generator ended or gave no answer.
    """
    servers = [candidate] if baseline is None else [candidate, baseline]
    for server in servers:
        if server.request_s is None:
            server.warm_up()
    plan = Plan.of(load, servers)
    collectors = [_Collector(server, load, plan, fixed=fixed) for server in servers]
    number, next_look, start = 0, MIN_WINDOWS, time.monotonic()
    with Generator({core for server in servers for core in server.cores}) as generator:
        for index, candidate_first in enumerate(orders()):
            due_s = window(load, index, window_s=plan.window_s, ramp_s=plan.ramp_s, seed=seed)
            for collector in collectors if candidate_first else reversed(collectors):
                number += 1
                collector.run(generator, due_s, number)
            taken, elapsed = index + 1, time.monotonic() - start
            if elapsed >= cap_s and taken >= 2:
                break
            if taken >= next_look and elapsed >= min_s:
                next_look = max(taken + 1, round(taken * _LOOK_EVERY))
                if decided(*_readings(collectors)):
                    break
    return _readings(collectors)


def _readings(collectors: list[_Collector]) -> tuple[LatencyReading, LatencyReading | None]:
    first, *rest = [c.reading() for c in collectors]
    return first, rest[0] if rest else None
