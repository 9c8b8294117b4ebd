"""A loaded model that answers its requests one after another: what is timed, inside the serving child.

Standard library only, as in ``server``: what else were imported would be measured as the model's.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autopilot.errors import DataError

if TYPE_CHECKING:
    from autopilot.bench.batching import Batcher
    from autopilot.contracts import Array, Session
    from autopilot.data import Split

# Warm-up goes on until two neighbouring windows of block medians agree this closely.
STEADY_TOLERANCE = 0.03
STEADY_WINDOW = 4
# A warm-up block: short enough that fast models settle in some 0.1 s, long enough for a median.
_WARM_BLOCK_S = 0.01
_WARM_BLOCK_REQUESTS = 4


def is_steady(medians: list[float], window: int = STEADY_WINDOW, tolerance: float = STEADY_TOLERANCE) -> bool:
    """Whether the running median of block medians has stopped moving.

    >>> is_steady([9.0, 5.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    True
    """
    if len(medians) < 2 * window:
        return False
    before = statistics.median(medians[-2 * window : -window])
    now = statistics.median(medians[-window:])
    return abs(now - before) <= tolerance * now


def make_requests(split: Split, batch: int, count: int, limit_bytes: int) -> list[dict[str, Array]]:
    """Up to ``count`` different requests of ``batch`` samples, at most ``limit_bytes`` in all, at least one.

    With a preprocess hook they are stored arrays (the hook is part of the request), else model inputs.
    """
    if not split.batched and batch != 1:
        raise DataError("batched: false makes a request one sample, so the batch size is 1.", f"It was {batch}.")
    requests: list[dict[str, Array]] = []
    size = 0
    for i in range(max(1, min(count, split.n // batch))):
        indices = [(i * batch + j) % split.n for j in range(batch)]
        request = split.raw(indices) if split.preprocess is not None else split.feed(indices)
        size += sum(a.nbytes for a in request.values())
        if requests and size > limit_bytes:
            break
        requests.append(request)
    return requests


class Serving:
    """A loaded model with its requests; each request takes the next samples."""

    def __init__(
        self, sessions: list[Session], split: Split, requests: list[dict[str, Array]], *, per_shape: bool = False
    ) -> None:
        self.session = sessions[0]
        self._sessions = sessions
        self._split = split
        self._requests = requests
        self._per_shape = per_shape
        self._next = 0
        self._batcher: Batcher | None = None
        self.has_hooks = split.preprocess is not None or split.postprocess is not None

    def _take(self) -> dict[str, Array]:
        request = self._requests[self._next]
        self._next = (self._next + 1) % len(self._requests)
        return request

    def answer(self) -> tuple[int, int, int, int]:
        """Answer one request; the clock (ns) before it, after preprocess, after the model, at the end."""
        request = self._take()
        clock = time.perf_counter_ns
        start = clock()
        if not self.has_hooks:
            self.session.run(request)
            end = clock()
            return start, start, end, end
        if self._split.preprocess is not None:
            request = self._split.preprocessed(request)
        prepared = clock()
        outputs = self.session.run(request)
        ran = clock()
        if self._split.postprocess is not None:
            from autopilot.data.hooks import apply_postprocess

            named = dict(zip(self.session.output_names, outputs, strict=True))
            apply_postprocess(self._split.postprocess, self._split.postprocess_reference or "", named)
        return start, prepared, ran, clock()

    def block(self, n: int) -> dict[str, Any]:
        """``n`` timed requests, garbage collection off: latencies, wall and processor time, all in ns."""
        gc.disable()
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        clocks = [self.answer() for _ in range(n)]
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        gc.enable()
        reply: dict[str, Any] = {"latency_ns": [c[3] - c[0] for c in clocks], "wall_ns": wall, "cpu_ns": cpu}
        if self.has_hooks:
            reply["preprocess_ns"] = [c[1] - c[0] for c in clocks]
            reply["postprocess_ns"] = [c[3] - c[2] for c in clocks]
        return reply

    def serve_for(self, seconds: float) -> dict[str, Any]:
        """Answer requests for so long, at least one, none of them timed: what an energy counter watches."""
        gc.disable()
        deadline, n = time.perf_counter() + seconds, 1
        self.answer()
        while time.perf_counter() < deadline:
            self.answer()
            n += 1
        gc.enable()
        return {"requests": n}

    def open_traffic(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Get ready for scheduled requests, each one sample; where they are to be written."""
        from autopilot.bench.batching import batcher

        if self._batcher is None:
            singles = make_requests(self._split, 1, int(told["requests"]), int(told["limit_bytes"]))
            every_size = self._per_shape or bool(told.get("every_size"))
            self._batcher = batcher(self._sessions, self._split, singles, told, every_size=every_size)
        return {"queue": str(self._batcher.path), "unmet": self._batcher.unmet, "per_shape": self._per_shape}

    def meet_size(self) -> dict[str, Any]:
        """Run one size of batch that the runtime has not met yet."""
        assert self._batcher is not None, "open_traffic comes first"
        self._batcher.meet_next()
        return {"unmet": self._batcher.unmet}

    def window(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Serve one window of scheduled requests."""
        from autopilot.bench.batching import Window

        assert self._batcher is not None, "open_traffic comes first"
        return self._batcher.serve(
            Window(int(told["number"]), int(told["count_ns"]), int(told["stop_ns"]), int(told["drain_ns"]))
        )

    def warm_up(self, cap_s: float) -> dict[str, Any]:
        """Answer requests until latency is steady or ``cap_s`` seconds are over."""
        deadline = time.perf_counter() + cap_s
        medians: list[float] = []
        n, total = _WARM_BLOCK_REQUESTS, 0
        while not is_steady(medians) and time.perf_counter() < deadline:
            latencies = self.block(n)["latency_ns"]
            total += n
            medians.append(statistics.median(latencies) / 1e9)
            n = max(_WARM_BLOCK_REQUESTS, min(1000, round(_WARM_BLOCK_S / max(medians[-1], 1e-9))))
        last = medians[-STEADY_WINDOW:] or [self.block(1)["latency_ns"][0] / 1e9]
        return {"request_s": statistics.median(last), "requests": total, "steady": is_steady(medians)}
