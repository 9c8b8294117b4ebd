"""Take readings of one variant, each pass in processes of its own: latency, cold start and memory, outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autopilot.bench.child import ChildLimits
from autopilot.bench.evaluation import Evaluation, evaluate, probe_batching
from autopilot.bench.live import Block, Server
from autopilot.profile import Floats, LatencyReading, Placement
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    from autopilot.data import Split

__all__ = [
    "Block",
    "ColdReading",
    "Evaluation",
    "Server",
    "evaluate",
    "measure_cold",
    "measure_empty",
    "measure_latency",
    "probe_batching",
]

# Long enough that starting a block weighs nothing, short enough that both servers see the same machine.
BLOCK_S = 0.03
# Several threads spin on after a block and are waited for: longer blocks keep that a small share.
THREADED_BLOCK_S = 0.08
MIN_BLOCK_REQUESTS = 4
# Intervals take blocks as their unit: with fewer than this they say nothing.
MIN_BLOCKS = 10
# Looks at the data grow apart by this factor, so that stopping at a lucky one stays rare.
_LOOK_EVERY = 1.25
_COLD_REQUESTS = 16

Decided = Callable[[LatencyReading, LatencyReading | None], bool]


@dataclass(frozen=True, slots=True)
class ColdReading:
    """Readings of fresh processes: start, load, first answer, a few requests, exit.

    load_s: float64, shape (repeats,), seconds from process start to first answer.
    peak_memory_bytes: the highest of the processes' high-water marks.
    """

    load_s: Floats
    peak_memory_bytes: int
    placement: Placement
    warnings: tuple[str, ...]


class _Collector:
    """Blocks of one server, gathered into a LatencyReading."""

    def __init__(self, server: Server) -> None:
        self._server = server
        block_s = BLOCK_S if server.deployment.threads == 1 else THREADED_BLOCK_S
        request_s = server.request_s or block_s
        self._n = max(MIN_BLOCK_REQUESTS, round(block_s / max(request_s, 1e-9)))
        self._blocks: list[Block] = []

    def run(self) -> None:
        self._blocks.append(self._server.block(self._n))
        self._server.settle()

    def reading(self) -> LatencyReading:
        sizes = [b.latency_s.size for b in self._blocks]
        return LatencyReading(
            latency_s=np.concatenate([b.latency_s for b in self._blocks]),
            block=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            block_wall_s=np.array([b.wall_s for b in self._blocks]),
            block_cpu_s=np.array([b.cpu_s for b in self._blocks]),
            samples_per_request=self._server.deployment.batch,
        )


def orders() -> Iterator[bool]:
    """Whether the candidate goes first: A B B A, so that a steady drift favours neither."""
    while True:
        yield from (True, False, False, True)


def measure_latency(
    candidate: Server,
    baseline: Server | None,
    *,
    decided: Decided,
    cap_s: float,
    min_s: float = 0.0,
) -> tuple[LatencyReading, LatencyReading | None]:
    """Timed blocks of ``candidate``, interleaved with ``baseline``'s where there is one.

    Block k of one ran next to block k of the other. Servers that were not warmed up are; a server
    that was idle since then answers one block that isn't counted, so that its caches are warm again.

    Args:
        candidate: a live server.
        baseline: another live server bound to the same cores, or None.
        decided: called with the readings so far now and then; True ends the measurement.
        cap_s: seconds after which it ends anyway (two blocks are always taken).
        min_s: seconds before ``decided`` is asked at all.

    Raises:
        WorkerDied: a server ended or gave no answer.
    """
    servers = [candidate] if baseline is None else [candidate, baseline]
    for server in servers:
        if server.request_s is None:
            server.warm_up()
    collectors = [_Collector(server) for server in servers]
    for server in servers:
        server.block(MIN_BLOCK_REQUESTS)
        server.settle()

    start = time.monotonic()
    next_look = MIN_BLOCKS
    for taken, candidate_first in enumerate(orders(), start=1):
        for collector in collectors if candidate_first else reversed(collectors):
            collector.run()
        elapsed = time.monotonic() - start
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


def measure_cold(
    artifact: Path, deployment: Deployment, *, split: Split, limits: ChildLimits, repeats: int = 1
) -> ColdReading:
    """Start time and peak memory of fresh processes that load ``artifact`` and answer a few requests.

    Raises:
        VariantFailed: it doesn't load or answer.
    """
    load_s: list[float] = []
    peaks: list[int] = []
    warnings: list[str] = []
    placement = Placement()
    for _ in range(repeats):
        with Server.start(artifact, deployment, split=split, limits=limits, requests=_COLD_REQUESTS) as server:
            server.block(_COLD_REQUESTS)
            peaks.append(server.peak_memory_bytes())
            load_s.append(server.load_s)
            placement = server.placement
            warnings.extend(server.warnings)
    return ColdReading(np.array(load_s), max(peaks), placement, tuple(dict.fromkeys(warnings)))


def measure_empty(deployment: Deployment, limits: ChildLimits) -> int:
    """Peak memory in bytes of the serving process with no model: what every variant carries."""
    with Server.start_empty(deployment, limits) as server:
        return server.peak_memory_bytes()
