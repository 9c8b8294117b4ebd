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
# A little less than SERVED_S is enough: blocks end with a request, not with the clock.
_ENOUGH = 0.98
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
    server: Serves,
    counter: Counter,
    *,
    decided: Callable[[EnergyReading], bool] = lambda reading: True,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> EnergyReading:
    """Pairs of an idle and a busy block of a warm server, until ``SERVED_S`` or ``UPDATES`` are reached.

    Where the reading is not ``decided`` then, as many pairs follow again and again, up to ``SERVED_S`` of serving.

    Raises:
        NotMeasurable: the counter stands still or stopped answering.
        WorkerDied: the server ended or gave no answer.
    """
    update_s = update_period_s(counter, clock=clock, sleep=sleep)
    blocks = _Blocks(server, counter, min(SERVED_S, UPDATES * update_s) / PAIRS, clock, sleep)
    while True:
        blocks.take(PAIRS)
        reading = blocks.reading(update_s)
        if float(reading.busy_s.sum()) >= SERVED_S * _ENOUGH or decided(reading):
            return reading


class _Blocks:
    """Pairs of blocks as they are taken."""

    def __init__(
        self, server: Serves, counter: Counter, block_s: float, clock: Clock, sleep: Callable[[float], None]
    ) -> None:
        self._server, self._counter = server, counter
        self._block_s, self._clock, self._sleep = block_s, clock, sleep
        self._idle: list[tuple[float, float]] = []
        self._busy: list[tuple[float, float]] = []
        self._samples: list[float] = []

    def take(self, pairs: int) -> None:
        """Idle, busy, busy, idle …: a steady drift favours neither."""
        self._server.settle()
        for pair in range(pairs):
            for block in (
                (self._idle_block, self._busy_block) if pair % 2 == 0 else (self._busy_block, self._idle_block)
            ):
                block()

    def _idle_block(self) -> None:
        self._idle.append(_watched(lambda: self._sleep(self._block_s), self._counter, self._clock))

    def _busy_block(self) -> None:
        def serve() -> None:
            self._samples.append(float(self._server.serve_for(self._block_s)))

        self._busy.append(_watched(serve, self._counter, self._clock))
        self._server.settle()  # threads that still spin would count as idle power

    def reading(self, update_s: float) -> EnergyReading:
        (idle_mj, idle_s), (busy_mj, busy_s) = np.array(self._idle).T, np.array(self._busy).T
        samples, counter = np.array(self._samples), self._counter
        return EnergyReading(busy_mj, busy_s, idle_mj, idle_s, samples, counter.source, counter.scope, update_s)


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
