"""What a block costs by the number of units that it keeps: multiplications, or milliseconds of ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.techniques._units import Block, Graph
from autopilot.techniques._units_cut import cut
from autopilot.techniques._units_run import Session

if TYPE_CHECKING:
    from autopilot.contracts import Array

# Shares of the units at which a table is measured; between them it is linear.
_SHARES = (0.25, 0.5, 0.75)
# Medians over turns in which every size answers once, so that the machine's moods hit all alike; big models get fewer.
_TURNS, _FEWEST_TURNS, _TABLE_S, _WARM_UP = 60, 7, 20.0, 3


def multiplications(graph: Graph, blocks: Sequence[Block]) -> list[Array]:
    """Multiply-accumulates of one request: a float64 array a block, by the number of units from 0 on."""
    return [np.arange(block.units + 1) * (_macs(graph, block) / block.units) for block in blocks]


def _macs(graph: Graph, block: Block) -> float:
    total = 0.0
    for place in block.cuts:
        name = graph.node(place.node).input[place.index]
        if place.index == 1 and graph.stored[name].ndim == 2 and graph.node(place.node).op_type in ("MatMul", "Gemm"):
            rows = prod(graph.shape(graph.node(place.node).output[0])[:-1])
            held = graph.stored[name].size
            total += rows * held
    for number in block.products:
        node = graph.node(number)
        total += prod(graph.shape(node.output[0])) * graph.shape(node.input[0])[-1]
    return total


def milliseconds(
    graph: Graph, blocks: Sequence[Block], feed: Mapping[str, Array], threads: int, tell: Callable[[str], None]
) -> list[Array]:
    """As ``multiplications``, in measured milliseconds: blocks of one shape share a table.

    Each point is the model with all blocks of that shape cut to a share of their units, timed in turns with the
    others. A table never falls with more units; between its points, and down to no units, it is a line.
    """
    kinds = {key: [b for b in blocks if _kind(graph, b) == key] for key in {_kind(graph, b): 0 for b in blocks}}
    points = {key: _points(same[0].units) for key, same in kinds.items()}
    smaller = [(same, count) for key, same in kinds.items() for count in points[key]]
    tell(f"pruning: timing {len(smaller) + 1} sizes of the model")
    names = [o.name for o in graph.model.graph.output]
    sessions = [Session(graph.model, names, threads, optimize=True)]
    for same, count in smaller:
        sessions.append(Session(cut(graph, same, [np.arange(count)] * len(same)), names, threads, optimize=True))
    whole, *times = _medians_ms(sessions, feed)
    tables: dict[Any, Array] = {}
    for key, same in kinds.items():
        mine, times = times[: len(points[key])], times[len(points[key]) :]
        counts, units = [*points[key], same[0].units], same[0].units
        tables[key] = _table(np.array(counts), np.array([*mine, whole]) / len(same), units)
    return [tables[_kind(graph, b)] for b in blocks]


def _kind(graph: Graph, block: Block) -> tuple[Any, ...]:
    """What blocks of one speed have in common: the shapes of all that they hold."""
    held = tuple(graph.shape(graph.node(c.node).input[c.index]) for c in block.cuts)
    return (block.is_attention, block.units, block.inner, graph.shape(block.hidden), held)


def _points(units: int) -> list[int]:
    return sorted({max(1, round(units * share)) for share in _SHARES} - {units})


def _table(counts: Array, times_ms: Array, units: int) -> Array:
    """Costs for 0 to ``units`` units of one block, above what it takes with none; never falling."""
    rising = np.maximum.accumulate(times_ms)
    costs = np.interp(np.arange(units + 1), counts, rising)
    first = int(counts[0])
    slope = (rising[-1] - rising[0]) / max(units - first, 1)
    costs[: first + 1] = rising[0] - slope * (first - np.arange(first + 1))
    rest: Array = costs - costs[0]
    return rest


def _medians_ms(sessions: Sequence[Session], feed: Mapping[str, Array]) -> list[float]:
    """The median milliseconds of each, in turns."""
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(feed)
    taken: list[list[float]] = [[] for _ in sessions]
    begun = time.perf_counter()
    for turn in range(_TURNS):
        if turn >= _FEWEST_TURNS and time.perf_counter() - begun > _TABLE_S:
            break
        for session, times in zip(sessions, taken, strict=True):
            start = time.perf_counter()
            session.run(feed)
            times.append((time.perf_counter() - start) * 1e3)
    return [float(np.median(t)) for t in taken]
