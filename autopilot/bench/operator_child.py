"""The profiling child: real requests with the runtime's profiler on. Its latencies are nobody's figures.

The parent's side is ``operators``.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopilot.bench.childside import child_main
from autopilot.errors import Unsupported
from autopilot.recipe import Deployment

# Shares of the time settle within some dozens of requests; more only makes the runtime's file larger.
MOST_REQUESTS = 200
FEWEST_REQUESTS = 5
# The pass may take a few seconds in all: slow models get fewer requests than fast ones.
PROFILED_S = 2.0
WARM_UP_REQUESTS = 20
WARM_UP_S = 0.5
# Every node that runs leaves some 800 bytes of text: 50,000 are 40 MB, read back in half a second.
MOST_EVENTS = 50_000


def requests_for(nodes: int) -> int:
    """How many requests of a graph of ``nodes`` nodes are profiled at most.

    >>> requests_for(10), requests_for(1000), requests_for(100_000)
    (200, 50, 5)
    """
    return max(FEWEST_REQUESTS, min(MOST_REQUESTS, MOST_EVENTS // max(1, nodes)))


def profile(request: Mapping[str, Any]) -> dict[str, Any]:
    """Costs by operator of real requests in the variant's own deployment, warm-up excluded."""
    from autopilot.bench.answering import Serving, make_requests
    from autopilot.bench.server import find_provider
    from autopilot.data import Split

    deployment = Deployment.from_json(request["deployment"])
    provider = find_provider(deployment.provider)
    if "profile_to" not in inspect.signature(provider.open).parameters:
        raise Unsupported(f"the provider {provider.name} has no profiler.")
    split = Split.load(Path(request["split"]))
    held = make_requests(split, deployment.batch, MOST_REQUESTS, request["limit_bytes"])
    session = provider.open(Path(request["artifact"]), deployment, profile_to=Path(request["folder"]) / "profile")
    serving = Serving([session], split, held)
    _answer(serving, WARM_UP_REQUESTS, WARM_UP_S)
    done = _answer(serving, requests_for(sum(session.placement().nodes.values())), PROFILED_S)
    costs = session.operator_costs(done)
    return {"rows": [row.to_json() for row in costs], "requests": done, "samples_per_request": deployment.batch}


def _answer(serving: Any, most: int, cap_s: float) -> int:
    """Answer up to ``most`` requests in ``cap_s`` seconds, one at least; how many they were."""
    deadline = time.perf_counter() + cap_s
    done = 0
    while done < most and (done == 0 or time.perf_counter() < deadline):
        serving.answer()
        done += 1
    return done


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Pin to the deployment's cores, then profile."""
    if request["cores"]:
        from autopilot.bench.cores import pin

        pin(request["cores"])
    return profile(request)


if __name__ == "__main__":
    child_main(handle)
