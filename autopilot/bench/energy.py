"""The energy pass: a hardware counter over blocks in which the server sleeps and blocks in which it serves.

RAPL is updated about every millisecond, NVML every 20 to 100 ms (Khan et al. 2018; Yang et al. 2023), and both
count the whole hardware. So the pass lasts long enough for many updates, idle power is read beside every busy
block, and the order alternates (idle, busy, busy, idle …), so that a steady drift of temperature cancels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from autopilot import counters, nvml
from autopilot.bench.gpu import devices_of, runs_on_gpu
from autopilot.counters import Counter, NvmlCounter, RaplCounter, SumCounter
from autopilot.errors import NotMeasurable
from autopilot.profile import EnergyReading, Placement

# Busy time: whichever of the two is reached first.
SERVED_S = 10.0
UPDATES = 1000
# Pairs of blocks are the interval's unit: Student's t for 11 degrees of freedom is near the normal's, and a block
# still holds 80 updates of RAPL and 8 to 40 of NVML. Even, so that both orders come as often.
PAIRS = 12
# The period of updates is found by watching this many of them, or for so long.
_WATCHED_UPDATES = 20
_WATCH_S = 2.0

Clock = Callable[[], float]


class Serves(Protocol):
    """What the pass needs of a ``Server``."""

    def serve_for(self, seconds: float) -> int: ...

    def settle(self) -> None: ...


def open_counter(pid: int, placement: Placement, *, root: Path = Path("/"), api: object = None) -> Counter:
    """The counter of the hardware that process ``pid`` runs on: the packages, for a GPU variant the devices too.

    Raises:
        NotMeasurable: there is none that counts what the variant runs on; the message says why.
    """
    reason = counters.rapl_reason(root)
    parts: list[Counter] = [] if reason else [RaplCounter(counters.rapl_packages(root))]
    if runs_on_gpu(placement):
        # Without this one the figure would leave out the better part of a GPU variant: no counter at all then.
        parts.append(NvmlCounter(devices_of(pid, nvml.open_devices(api))))
    if not parts:
        raise NotMeasurable(reason)
    return parts[0] if len(parts) == 1 else SumCounter(tuple(parts))


def measure_energy(
    server: Serves, counter: Counter, *, clock: Clock = time.perf_counter, sleep: Callable[[float], None] = time.sleep
) -> EnergyReading:
    """Pairs of an idle and a busy block of a warm server, until ``SERVED_S`` or ``UPDATES`` are reached.

    Raises:
        NotMeasurable: the counter stands still or stopped answering.
        WorkerDied: the server ended or gave no answer.
    """
    update_s = update_period_s(counter, clock=clock, sleep=sleep)
    block_s = min(SERVED_S, UPDATES * update_s) / PAIRS
    samples: list[float] = []

    def idle() -> None:
        sleep(block_s)

    def busy() -> None:
        samples.append(float(server.serve_for(block_s)))

    server.settle()
    took: dict[Callable[[], None], list[tuple[float, float]]] = {idle: [], busy: []}
    for pair in range(PAIRS):
        for block in (idle, busy) if pair % 2 == 0 else (busy, idle):
            took[block].append(_watched(block, counter, clock))
            if block is busy:
                server.settle()  # threads that still spin would count as idle power
    (idle_mj, idle_s), (busy_mj, busy_s) = np.array(took[idle]).T, np.array(took[busy]).T
    return EnergyReading(busy_mj, busy_s, idle_mj, idle_s, np.array(samples), counter.source, counter.scope, update_s)


def _watched(block: Callable[[], None], counter: Counter, clock: Clock) -> tuple[float, float]:
    """Millijoules and seconds between the readings before and after ``block``."""
    before_mj, start = counter.read_mj(), clock()
    block()
    after_mj, end = counter.read_mj(), clock()
    return after_mj - before_mj, end - start


def update_period_s(counter: Counter, *, clock: Clock, sleep: Callable[[float], None]) -> float:
    """Seconds between two updates of ``counter``, by watching it before the pass; of its slowest part.

    Several sockets or devices show as many more changes in their sum: each must be updated often enough.

    Raises:
        NotMeasurable: it stands still.
    """
    if counter.parts:
        return max(update_period_s(part, clock=clock, sleep=sleep) for part in counter.parts)
    last, start = counter.read_mj(), clock()
    updates, first, latest = 0, start, start
    while updates < _WATCHED_UPDATES and clock() - start < _WATCH_S:
        now = counter.read_mj()
        if now != last:
            last, latest = now, clock()
            first = latest if updates == 0 else first
            updates += 1
        sleep(1e-4)  # a watcher that never pauses would be what the package does
    if updates < 2:
        raise NotMeasurable(f"the {counter.source} counter stood still for {_WATCH_S:g} s")
    return counter.registers * (latest - first) / (updates - 1)
