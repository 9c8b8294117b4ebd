"""ONNX Runtime's profile file -> what each kind of node cost.

The file is a JSON array of trace events, one a line. ONNX Runtime 1.32 writes for every node that ran an
event of category ``Node`` (``args``: ``op_name``, ``provider``, ``input_type_shape``), and for every
request a ``model_run`` of category ``Session``. Times are whole microseconds, cut, not rounded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autopilot.errors import Unsupported
from autopilot.profile import OperatorCost

# Their time holds that of the nodes in their branches, which have events of their own.
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
# Integer types that name a scheme where they stand beside a wider activation.
_NARROW = ("int8", "uint8", "int4", "uint4", "int2", "uint2")
_NUMPY = {"float": "float32", "double": "float64"}
_KERNEL = "_kernel_time"
_SHAPES = ("input_type_shape", "output_type_shape")
# Nodes that convert: their zero point's type is no weight's.
_CONVERTS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True, slots=True)
class NodeRun:
    """One run of one node; ``start_us`` and ``took_us`` in microseconds, ``thread`` as the runtime numbers it.

    ``elements``: of the largest tensor that it read or wrote.
    """

    operator: str
    provider: str
    dtype: str
    weights: str
    thread: int
    start_us: int
    took_us: int
    elements: int = 0

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """What is added up in one row."""
        return self.operator, self.provider, self.dtype, self.weights

    def on(self, provider: str) -> NodeRun:
        """The same run, told of another provider."""
        return replace(self, provider=provider)


def read_profile(path: Path, requests: int) -> tuple[OperatorCost, ...]:
    """Costs of the last ``requests`` requests in the profile at ``path``, the dearest first.

    Raises:
        Unsupported: the file holds fewer requests, or is not what this version reads.
    """
    return costs_of(read_runs(path, requests)[0], requests)


def read_runs(path: Path, requests: int) -> tuple[list[NodeRun], float]:
    """The runs of nodes in the last ``requests`` requests at ``path``, and the seconds of these requests in all.

    Raises:
        Unsupported: the file holds fewer requests, or is not what this version reads.
    """
    try:
        runs_of_all = sorted(
            (int(e["ts"]), int(e["dur"])) for e in _events(path, '"model_run"') if e.get("cat") == "Session"
        )
        if len(runs_of_all) < requests:
            raise Unsupported(f"the runtime's profile holds {len(runs_of_all)} of {requests} requests.")
        last = runs_of_all[-requests:]
        runs = [_node_run(e) for e in _events(path, '"Node"') if _counts(e, last[0][0])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise Unsupported(f"the runtime's profile can't be read ({type(exc).__name__}: {exc}).") from exc
    return runs, sum(took_us for _, took_us in last) / 1e6


def _events(path: Path, mark: str) -> Iterator[dict[str, Any]]:
    """Events whose line holds ``mark``: a profile of many requests is too large to be held whole."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if mark in line:
                yield json.loads(line.strip().rstrip(","))


def _counts(event: Mapping[str, Any], first_us: int) -> bool:
    return event.get("cat") == "Node" and str(event["name"]).endswith(_KERNEL) and int(event["ts"]) >= first_us


def _node_run(event: Mapping[str, Any]) -> NodeRun:
    args = event["args"]
    types = [_NUMPY.get(name, name) for entry in args.get("input_type_shape") or () for name in entry]
    sizes = [math.prod(dims) for key in _SHAPES for entry in args.get(key) or () for dims in entry.values()]
    operator, dtype = str(args["op_name"]), types[0] if types else ""
    others = [] if operator in _CONVERTS else [t for t in types[1:] if t in _NARROW and t != dtype]
    return NodeRun(
        operator,
        str(args["provider"]),
        dtype,
        others[0] if others else "",
        int(event["tid"]),
        int(event["ts"]),
        int(event["dur"]),
        max(sizes, default=0),
    )


def costs_of(runs: list[NodeRun], requests: int) -> tuple[OperatorCost, ...]:
    """``runs`` of ``requests`` requests added up by operator, provider and types."""
    counts: dict[tuple[str, str, str, str], int] = {}
    micros: dict[tuple[str, str, str, str], int] = {}
    for run, own_us in zip(runs, _own_us(runs), strict=True):
        counts[run.kind] = counts.get(run.kind, 0) + 1
        micros[run.kind] = micros.get(run.kind, 0) + own_us
    rows = [
        OperatorCost(operator, provider, dtype, counts[kind] / requests, micros[kind] / 1e6 / requests, weights)
        for kind in counts
        for operator, provider, dtype, weights in [kind]
    ]
    return tuple(sorted(rows, key=lambda row: (-row.seconds, row.operator, row.dtype, row.weights, row.provider)))


def _own_us(runs: list[NodeRun]) -> list[int]:
    """Microseconds of each run without those of the nodes inside it, which count for themselves."""
    own = [run.took_us for run in runs]
    order = sorted(range(len(runs)), key=lambda i: (runs[i].thread, runs[i].start_us, -runs[i].took_us))
    around: list[int] = []
    for i in order:
        run = runs[i]
        while around and not _is_inside(run, runs[around[-1]]):
            around.pop()
        if around:
            own[around[-1]] -= run.took_us
        if run.operator in _CONTROL_FLOW:
            around.append(i)
    return [max(0, us) for us in own]


def _is_inside(run: NodeRun, outer: NodeRun) -> bool:
    return run.thread == outer.thread and run.start_us < outer.start_us + outer.took_us
