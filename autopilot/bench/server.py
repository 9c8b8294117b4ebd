"""The serving child: loads one model as its deployment says and answers timed requests over pipes.

Only the standard library, numpy and the provider's runtime are loaded here: what serving needs, so
that memory and timing are the model's own. Commands come as JSON lines on stdin; answers leave as
JSON lines on what was stdout, while stray prints go to stderr. The parent's side is ``live``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.bench.childside import error_to_json, obey, read_envelope
from autopilot.bench.footprint import memory, open_idle
from autopilot.errors import AutopilotError, DataError, Failure, VariantFailed
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    from autopilot.bench.batching import Batcher
    from autopilot.contracts import Array, Provider, Session
    from autopilot.data import Split

# Warm-up goes on until two neighbouring windows of block medians agree this closely.
STEADY_TOLERANCE = 0.03
STEADY_WINDOW = 4
# A warm-up block: short enough that fast models settle in some 0.1 s, long enough for a median.
_WARM_BLOCK_S = 0.01
_WARM_BLOCK_REQUESTS = 4
# Worker threads of ONNX Runtime 1.32 spin for some 40 ms after the last request, on the cores that
# another server is to be timed on. Processor time is counted in ticks of up to 4 ms.
_SETTLE_STEP_S = 0.01
_SETTLE_BUSY_S = 0.001
_SETTLE_CAP_S = 0.2


def pin(cores: list[int]) -> list[int]:
    """Bind this process (and threads it starts later) to ``cores``; returns the cores it really has."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        return []
    return sorted(os.sched_getaffinity(0))


def settle() -> dict[str, Any]:
    """Wait until this process's threads have stopped spinning, or for 0.2 s; the seconds it took."""
    start = time.perf_counter()
    idle = False
    while not idle and time.perf_counter() - start < _SETTLE_CAP_S:
        before = time.process_time()
        time.sleep(_SETTLE_STEP_S)
        idle = time.process_time() - before < _SETTLE_BUSY_S
    return {"seconds": time.perf_counter() - start}


def find_provider(name: str) -> Provider:
    """The provider called ``name``: the package's own by import, others through their entry points.

    Raises:
        VariantFailed: PROVIDER_MISSING, when there is none of that name.
    """
    try:
        module = importlib.import_module(f"autopilot.providers.{name}")
    except ModuleNotFoundError:
        from autopilot import plugins

        found = plugins.providers().get(name)
        if found is None:
            raise VariantFailed(Failure.PROVIDER_MISSING, f"there is no provider called {name!r}.") from None
        return found
    provider: Provider = module.PROVIDER
    return provider


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
            self._batcher = batcher(self._sessions, self._split, singles, told, every_size=self._per_shape)
        return {"queue": str(self._batcher.path), "unmet": self._batcher.unmet}

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


def _material(request: Mapping[str, Any], batch: int) -> tuple[Split | None, list[dict[str, Array]]]:
    """The split and the requests made of it; the empty server of a caller without data has none."""
    if request["split"] is None:
        return None, []
    from autopilot.data import Split

    split = Split.load(Path(request["split"]))
    return split, make_requests(split, batch, request["requests"], request["limit_bytes"])


def load(request: Mapping[str, Any]) -> tuple[Serving | None, dict[str, Any]]:
    """Load the model and answer the first request; with what ``ready`` reports.

    ``artifact`` None gives the same process without a model: what memory is compared with.
    """
    from autopilot.contracts import meets_each_shape

    deployment = Deployment.from_json(request["deployment"])
    provider = find_provider(deployment.provider)
    preparing = time.monotonic_ns()
    split, requests = _material(request, deployment.batch)
    preparing = time.monotonic_ns() - preparing
    if request["artifact"] is None:
        open_idle(provider, deployment)
        return None, {"distinct_requests": len(requests)}
    assert split is not None
    sessions = [provider.open(Path(request["artifact"]), deployment) for _ in range(deployment.instances)]
    serving = Serving(sessions, split, requests, per_shape=meets_each_shape(provider, deployment))
    serving.answer()
    first_answer = time.monotonic_ns()
    return serving, {
        "first_answer_ns": first_answer,
        "preparing_ns": preparing,
        "distinct_requests": len(requests),
        "output_names": list(serving.session.output_names),
        "placement": dict(serving.session.placement().nodes),
    }


def _commands(serving: Serving | None) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    always: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "memory": lambda c: dict(memory()),
        "modules": lambda c: {"modules": sorted(sys.modules)},
    }
    if serving is None:
        return always
    return {
        **always,
        "warm_up": lambda c: serving.warm_up(float(c["cap_s"])),
        "block": lambda c: serving.block(int(c["n"])),
        "serve_for": lambda c: serving.serve_for(float(c["seconds"])),
        "settle": lambda c: settle(),
        "open_traffic": serving.open_traffic,
        "meet_size": lambda c: serving.meet_size(),
        "window": serving.window,
    }


def serve(request: Mapping[str, Any], reply: Callable[[Mapping[str, Any]], None]) -> None:
    """Pin, load, report ready, then answer commands until stdin ends."""
    cores = pin(request["cores"])
    serving, ready = load(request)
    gc.collect()
    gc.freeze()
    reply({"ready": True, "cores": cores, **ready})
    commands = _commands(serving)
    for line in sys.stdin.buffer:
        command = json.loads(line)
        reply(commands[command["do"]](command))


def main() -> None:
    """Serve the request named on the command line; an error of ours travels as the reply."""
    envelope = read_envelope(Path(sys.argv[1]))
    obey(envelope)
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def reply(value: Mapping[str, Any]) -> None:
        channel.write(json.dumps(value).encode() + b"\n")
        channel.flush()

    code = 0
    try:
        serve(envelope["request"], reply)
    except AutopilotError as error:
        traceback.print_exc()
        reply({"error": error_to_json(error)})
    except MemoryError:
        traceback.print_exc()
        reply({"error": error_to_json(VariantFailed(Failure.OOM, "the serving process ran out of memory."))})
    except BrokenPipeError:
        pass
    except Exception:  # the main of a child: what it is shows in its log, and the parent calls it a crash
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # skips destructors of native libraries: a crash at exit must not spoil what was measured


if __name__ == "__main__":
    main()
