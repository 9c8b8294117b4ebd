"""Take readings of one variant, each pass in processes of its own: latency, cold start and memory, outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autopilot.bench.child import ChildLimits
from autopilot.bench.evaluation import Evaluation, check_sizes, evaluate, probe_batching
from autopilot.bench.gpu import gpu_memory
from autopilot.bench.live import Block, Server
from autopilot.model import shapes_apart
from autopilot.profile import Floats, LatencyReading, Placement
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    from autopilot.data import Split

__all__ = [
    "Block",
    "ColdReading",
    "Evaluation",
    "Server",
    "check_sizes",
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
    peak_memory_bytes: the highest of the processes' high-water marks, each in ``starts_bytes``; None where the
        system tells none. Processes that were not made ready to serve, where others were, are not among these.
    resident_memory_bytes: of the last of these processes after its requests; None where the system doesn't tell.
    gpu_memory_bytes: of the same one, all its devices; None with ``gpu_memory_reason``.
    """

    load_s: Floats
    peak_memory_bytes: int | None
    placement: Placement
    warnings: tuple[str, ...]
    starts_bytes: tuple[int, ...] = ()
    resident_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    gpu_memory_reason: str = ""

    def with_more(self, later: ColdReading) -> ColdReading:
        """These starts and those of ``later``, as one reading."""
        starts = self.starts_bytes + later.starts_bytes
        return replace(
            later,
            load_s=np.concatenate([self.load_s, later.load_s]),
            peak_memory_bytes=max(starts, default=None),
            warnings=tuple(dict.fromkeys([*self.warnings, *later.warnings])),
            starts_bytes=starts,
        )


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
            preprocess_s=in_a_row([b.preprocess_s for b in self._blocks]),
            postprocess_s=in_a_row([b.postprocess_s for b in self._blocks]),
        )


def in_a_row(parts: list[Floats | None]) -> Floats | None:
    """A hook's seconds of all parts of a reading; None without that hook."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


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
    artifact: Path,
    deployment: Deployment,
    *,
    split: Split,
    limits: ChildLimits,
    repeats: int = 1,
    ready: Callable[[Server], None] | None = None,
) -> ColdReading:
    """Start time and peak memory of fresh processes that load ``artifact`` and answer a few requests.

    ``ready``: called with the first server after these and before its memory is read, to have it answer what else it
    will be asked when it serves. This may take minutes: the others tell how long a start takes, and memory is the
    first one's alone.

    Raises:
        VariantFailed: it doesn't load or answer.
    """
    first = _one_start(artifact, deployment, split, limits, ready=ready)
    others = [_one_start(artifact, deployment, split, limits) for _ in range(repeats - 1)]
    if ready is None:
        return reduce(ColdReading.with_more, others, first)
    starts = (first, *others)
    return replace(
        first,
        load_s=np.concatenate([start.load_s for start in starts]),
        warnings=tuple(dict.fromkeys(text for start in starts for text in start.warnings)),
    )


def _one_start(
    artifact: Path,
    deployment: Deployment,
    split: Split,
    limits: ChildLimits,
    *,
    ready: Callable[[Server], None] | None = None,
) -> ColdReading:
    with Server.start(artifact, deployment, split=split, limits=limits, requests=_COLD_REQUESTS) as server:
        server.block(_COLD_REQUESTS)
        if ready is not None:
            ready(server)
        gpu_bytes, reason = gpu_memory(server.pid, server.placement)
        peak = server.peak_memory_bytes()
        return ColdReading(
            np.array([server.load_s]),
            peak,
            shapes_apart(server.placement, artifact),
            server.warnings,
            () if peak is None else (peak,),
            server.resident_memory_bytes(),
            gpu_bytes,
            reason,
        )


def measure_empty(deployment: Deployment, limits: ChildLimits, *, split: Split | None = None) -> int | None:
    """Peak memory in bytes of the serving process with no model: what every variant of that deployment carries.

    None where the system tells no high-water mark.
    With ``split`` it holds the requests that ``measure_cold`` serves, so that they count on neither side.
    """
    with Server.start_empty(deployment, limits, split=split, requests=_COLD_REQUESTS) as server:
        return server.peak_memory_bytes()
