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
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.bench.answering import Serving, make_requests
from autopilot.bench.childside import error_to_json, obey, read_envelope
from autopilot.bench.cores import pin
from autopilot.bench.footprint import memory, open_idle
from autopilot.errors import AutopilotError, Failure, VariantFailed
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    from autopilot.contracts import Array, Provider
    from autopilot.data import Split

# Worker threads of ONNX Runtime 1.32 spin for some 40 ms after the last request, on the cores that
# another server is to be timed on. Processor time is counted in ticks of up to 4 ms.
_SETTLE_STEP_S = 0.01
_SETTLE_BUSY_S = 0.001
_SETTLE_CAP_S = 0.2


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
    placement = serving.session.placement()
    return serving, {
        "first_answer_ns": first_answer,
        "preparing_ns": preparing,
        "distinct_requests": len(requests),
        "output_names": list(serving.session.output_names),
        "placement": dict(placement.nodes),
        "host_nodes": list(placement.host),
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
