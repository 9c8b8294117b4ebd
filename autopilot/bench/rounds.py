"""One latency reading from several fresh processes: two processes of one model differ, for as long as they live."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from autopilot.bench.launcher import Decided, in_a_row, measure_latency
from autopilot.bench.live import Server
from autopilot.profile import LatencyReading, TrafficReading

Servers = tuple[Server, Server | None]
Readings = tuple[LatencyReading, LatencyReading | None]


class Measure(Protocol):
    """Takes one reading of a candidate and, where there is one, a baseline."""

    def __call__(self, candidate: Server, baseline: Server | None, *, decided: Decided, cap_s: float) -> Readings: ...


def joined(readings: Sequence[LatencyReading]) -> LatencyReading:
    """One reading of all blocks, in order; ``block_process`` tells which reading each came from."""
    first = readings[0]
    if len(readings) == 1:
        return first
    blocks = [r.block_wall_s.size for r in readings]
    starts = [0, *accumulate(blocks)][: len(blocks)]
    return LatencyReading(
        latency_s=np.concatenate([r.latency_s for r in readings]),
        block=np.concatenate([r.block + start for r, start in zip(readings, starts, strict=True)]).astype(np.int32),
        block_wall_s=np.concatenate([r.block_wall_s for r in readings]),
        block_cpu_s=np.concatenate([r.block_cpu_s for r in readings]),
        samples_per_request=first.samples_per_request,
        block_process=np.repeat(np.arange(len(readings), dtype=np.int32), blocks),
        preprocess_s=in_a_row([r.preprocess_s for r in readings]),
        postprocess_s=in_a_row([r.postprocess_s for r in readings]),
        traffic=_joined_traffic([r.traffic for r in readings if r.traffic is not None]),
    )


def _joined_traffic(readings: Sequence[TrafficReading]) -> TrafficReading | None:
    """All windows of the readings; the highest rate is that of the reading it was looked for in."""
    if not readings:
        return None
    arrays = {f.name for f in fields(TrafficReading) if isinstance(getattr(readings[0], f.name), np.ndarray)}
    rows: dict[str, Any] = {
        name: np.concatenate([getattr(r, name) for r in readings]) for name in arrays - {"batch_sizes"}
    }
    most = max(r.batch_sizes.size for r in readings)
    return replace(
        readings[0],
        **rows,
        batch_sizes=np.sum([np.pad(r.batch_sizes, (0, most - r.batch_sizes.size)) for r in readings], axis=0),
        lost_from_s=min(r.lost_from_s for r in readings),
        max_rate=next((r.max_rate for r in readings if r.max_rate is not None), None),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: at least ``rounds`` pairs of processes, each for up to ``round_s`` seconds.

    While nothing is decided more rounds follow, until ``cap_s`` seconds were measured (starts not counted).
    """

    rounds: int
    cap_s: float
    round_s: float = math.inf

    @property
    def most(self) -> int:
        """Rounds that fit into the cap; the planned ones at least."""
        return max(self.rounds, math.ceil(self.cap_s / self.round_s) if math.isfinite(self.cap_s) else 0)


def measure_rounds(
    servers: Callable[[], AbstractContextManager[Servers]],
    *,
    plan: Callable[[Servers], Plan],
    decided: Decided,
    measure: Measure | None = None,
) -> Readings:
    """Interleaved blocks of one or more pairs of processes, one pair after the other.

    Args:
        servers: starts (or lends) a candidate and, where there is one, a baseline, for one round.
        plan: asked with the first pair, warmed up.
        decided: asked with all readings so far, as ``measure_latency`` does, from the last planned round on.
            Rounds are of equal length, so that each process counts for about the same.
        measure: takes one round's reading; ``measure_latency`` where it is None.

    Raises:
        VariantFailed: a server doesn't start, or ends.
    """
    mine: list[LatencyReading] = []
    others: list[LatencyReading] = []
    planned = Plan(1, math.inf)
    spent_s, is_decided = 0.0, False

    def enough(reading: LatencyReading, beside: LatencyReading | None) -> bool:
        nonlocal is_decided
        if len(mine) + 1 < planned.rounds:
            return False
        is_decided = decided(joined([*mine, reading]), joined([*others, beside]) if beside is not None else None)
        return is_decided

    while len(mine) < planned.rounds or (len(mine) < planned.most and not is_decided and spent_s < planned.cap_s):
        with servers() as pair:
            warm_up(pair)
            if not mine:
                planned = plan(pair)
            start = time.monotonic()
            cap_s = min(planned.round_s, max(0.0, planned.cap_s - spent_s))
            reading, beside = (measure or measure_latency)(*pair, decided=enough, cap_s=cap_s)
            spent_s += time.monotonic() - start
        mine.append(reading)
        if beside is not None:
            others.append(beside)
    return joined(mine), joined(others) if others else None


def warm_up(pair: Servers) -> None:
    """Warm up the servers that weren't yet."""
    for server in pair:
        if server is not None and server.request_s is None:
            server.warm_up()
