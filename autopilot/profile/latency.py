"""Timed requests."""

from __future__ import annotations

from dataclasses import dataclass

from autopilot.profile.measurement import Floats, Ints
from autopilot.profile.traffic import TrafficReading


@dataclass(frozen=True, slots=True)
class LatencyReading:
    """Timed requests, warm-up excluded.

    latency_s: float64, shape (n_requests,), seconds, host arrays in to host arrays out; in server traffic
        from the time a request was due. For a request without an answer it is a lower bound.
    block: int32, shape (n_requests,), index of the block each request ran in; block k of the
        candidate and block k of the baseline ran next to each other.
    block_wall_s, block_cpu_s: float64, shape (n_blocks,), wall and processor seconds of a block.
    samples_per_request: the batch size of one request.
    block_process: int32, shape (n_blocks,), which of several serving processes of the same variant, started
        one after the other, a block ran in; None for one process.
    preprocess_s, postprocess_s: float64, shape (n_requests,), seconds of ``latency_s`` that the hooks
        took; None without hooks.
    traffic: what else is known of scheduled requests; None where each request waited for the one before.
    """

    latency_s: Floats
    block: Ints
    block_wall_s: Floats
    block_cpu_s: Floats
    samples_per_request: int = 1
    block_process: Ints | None = None
    preprocess_s: Floats | None = None
    postprocess_s: Floats | None = None
    traffic: TrafficReading | None = None

    @property
    def processes(self) -> int:
        """How many serving processes the requests come from."""
        return 1 if self.block_process is None else len(set(self.block_process.tolist()))
