"""Repeated stretches of a graph: what lies between two values of one shape, with nothing else leaving it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule, Node

# A block is at most so many steps of the chain: attention, norm, feed-forward, norm is four.
_LONGEST = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """What follows ``start`` up to and with ``end``, both names of nodes."""

    start: str
    end: str

    def take_out(self, module: Any) -> None:
        """Let what reads ``end`` read ``start``, in place."""
        graph: Any = module.graph
        nodes = {n.name: n for n in graph.nodes}
        nodes[self.end].replace_all_uses_with(nodes[self.start])
        graph.eliminate_dead_code()
        graph.lint()
        module.recompile()
        module.delete_all_unused_submodules()


def repeated(module: Any, run: Callable[[nn.Module], object]) -> Sequence[Segment]:
    """Stretches of ``module`` that follow each other and are made alike; empty where none do."""
    shapes = _shapes(module, run)
    chain = _chain(module, shapes)
    marks = [_mark(module, a, b) for a, b in itertools.pairwise(chain)]
    best: tuple[int, bool, int, int] | None = None  # weights covered, ends in a norm or activation, -period, start
    for period in range(1, min(_LONGEST, len(marks) // 2) + 1):
        for start in range(len(marks) - 2 * period + 1):
            count = _repeats(marks, start, period)
            end = chain[start + period]
            found = (count * period, end.op == "call_module", -period, start)
            if count > 1 and (best is None or found > best):
                best = found
    if best is None:
        return []
    covered, _, period, start = best[0], best[1], -best[2], best[3]
    bounds = chain[start : start + covered + 1 : period]
    return [Segment(a.name, b.name) for a, b in itertools.pairwise(bounds)]


def _shapes(module: Any, run: Callable[[nn.Module], object]) -> dict[str, tuple[Any, ...]]:
    """Shape and type of every tensor, by its node's name, for the samples of ``run``."""
    import torch
    from torch import fx

    found: dict[str, tuple[Any, ...]] = {}

    class Watch(fx.Interpreter):  # type: ignore[misc]  # fx has no types
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                found[n.name] = (tuple(value.shape), value.dtype)
            return value

    class Caller(torch.nn.Module):  # type: ignore[misc]
        def forward(self, *plain: Any, **keywords: Any) -> Any:
            names = [str(n.target) for n in module.graph.nodes if n.op == "placeholder"]
            given = dict(zip(names, plain, strict=False)) | keywords
            return Watch(module).run(*(given[name] for name in names))

    with torch.no_grad():
        run(Caller())
    return found


def _chain(module: GraphModule, shapes: dict[str, tuple[Any, ...]]) -> list[Node]:
    """The longest chain of values with weights in between, each of which can stand for the one before.

    A value stands for another of its shape where whatever else is used after it was there before the other.
    """
    nodes = [n for n in module.graph.nodes if n.op != "output"]
    place = {n: i for i, n in enumerate(nodes)}
    last_use = {n: max((place.get(u, len(nodes)) for u in n.users), default=-1) for n in nodes}
    longest: list[Node] = []
    begun: set[Node] = set()
    for first in nodes:
        if first in begun or first.name not in shapes or not shapes[first.name][1].is_floating_point:
            continue
        chain = [first]
        while (following := _following(chain[-1], nodes, last_use, shapes)) is not None:
            chain.append(following)
        begun |= set(chain)
        if len(chain) > len(longest):
            longest = chain
    return longest


def _following(
    start: Node, nodes: Sequence[Node], last_use: dict[Node, int], shapes: dict[str, tuple[Any, ...]]
) -> Node | None:
    """The nearest value after ``start`` that can stand for it, with weights in between."""
    at = nodes.index(start)
    weighty = False
    latest = -1  # the last use of what was made since, but for the value in question
    for i in range(at + 1, len(nodes)):
        node = nodes[i]
        weighty = weighty or node.op in ("call_module", "get_attr")
        own = shapes.get(node.name) == shapes[start.name]
        if weighty and own and latest <= i and last_use[start] <= i and last_use[node] > i:
            return node
        if node.op != "get_attr":  # a stored value can be read anywhere
            latest = max(latest, last_use[node])
    return None


def _between(module: GraphModule, start: Node, end: Node) -> list[Node]:
    nodes = list(module.graph.nodes)
    return nodes[nodes.index(start) + 1 : nodes.index(end) + 1]


def _mark(module: GraphModule, start: Node, end: Node) -> tuple[Any, ...]:
    """What a stretch is made of: equal for stretches that differ in their weights' values only."""
    # A stored value stands where it is first read, in one of the stretches that share it.
    return tuple(_kind(module, node) for node in _between(module, start, end) if node.op != "get_attr")


def _kind(module: GraphModule, node: Node) -> tuple[Any, ...]:
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        return (type(layer).__name__, tuple(tuple(p.shape) for p in layer.parameters()))
    return (node.op, str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", ""))


def _repeats(marks: Sequence[Any], start: int, period: int) -> int:
    """How often ``marks[start:start + period]`` follows itself."""
    count = 1
    while marks[start : start + period] == marks[start + count * period : start + (count + 1) * period]:
        count += 1
    return count
