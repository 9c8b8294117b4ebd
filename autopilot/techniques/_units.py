"""Blocks whose units can be removed whole: an attention's heads, the hidden neurons of a feed-forward.

A block is found from its far end: a layer that multiplies by a stored matrix, whose inputs come in units that
nothing but this layer uses. Walking back from it tells where each tensor on the way holds the units, which
layers make them, and which constants and shapes name their number. So no pattern of one exporter is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto, NodeProto

    from autopilot.contracts import Array


@dataclass(frozen=True, slots=True)
class Position:
    """Where a tensor holds units: its ``axis`` is (outer, units, ``inner``) in row-major order."""

    axis: int
    inner: int

    def rows(self, size: int, units: int, kept: Array) -> Array:
        """Indices along an axis of ``size`` that belong to the ``kept`` units; int64, ascending.

        >>> Position(0, 2).rows(12, 3, np.array([0, 2])).tolist()
        [0, 1, 4, 5, 6, 7, 10, 11]
        """
        outer = size // (units * self.inner)
        grid: Array = np.arange(size).reshape(outer, units, self.inner)[:, kept]
        return grid.reshape(-1)


@dataclass(frozen=True, slots=True)
class Cut:
    """The stored input ``index`` of node number ``node`` holds units at ``at``."""

    node: int
    index: int
    at: Position


@dataclass(frozen=True, slots=True)
class Resize:
    """Node number ``node`` names the number of units: in entries ``entries`` of input ``index``, all if None."""

    node: int
    index: int
    entries: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Block:
    """Units that can be removed: ``cuts`` and ``resizes`` say where they are stored and named.

    ``reader`` is the number of the layer at the far end, which takes ``units * inner`` inputs from the tensor
    ``hidden``. ``products``: numbers of the nodes on the way that multiply two computed tensors, as attention does.
    """

    reader: int
    hidden: str
    units: int
    inner: int
    products: tuple[int, ...]
    cuts: tuple[Cut, ...]
    resizes: tuple[Resize, ...]

    @property
    def is_attention(self) -> bool:
        """Whether the units are heads."""
        return bool(self.products)

    @property
    def width(self) -> int:
        """Inputs of the reading layer."""
        return self.units * self.inner


class NotUnits(Exception):
    """This way the tensors hold no units; ``inner``: try units of so many channels instead."""

    def __init__(self, reason: str, inner: int | None = None) -> None:
        super().__init__(reason)
        self.inner = inner


@dataclass(slots=True)
class Graph:
    """The main graph of ``model`` by names, with the shape that every tensor had in one real request."""

    model: ModelProto
    shapes: Mapping[str, tuple[int, ...]]
    stored: dict[str, Array] = field(default_factory=dict)
    makers: dict[str, int] = field(default_factory=dict)
    users: dict[str, list[int]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        from onnx import numpy_helper

        from autopilot.model.graph import subgraphs

        graph = self.model.graph
        self.stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.outputs = {o.name for o in graph.output}
        for number, node in enumerate(graph.node):
            self.makers.update(dict.fromkeys(filter(None, node.output), number))
            names = list(node.input) + [i for g in subgraphs(node) for n in g.node for i in n.input]
            for name in filter(None, names):
                self.users.setdefault(name, []).append(number)

    def node(self, number: int) -> NodeProto:
        """The node with this number in the graph's order."""
        found: NodeProto = self.model.graph.node[number]
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape.

        Raises:
            NotUnits: nothing ran that made it.
        """
        if name in self.stored:
            return tuple(self.stored[name].shape)
        if name not in self.shapes:
            raise NotUnits(f"the shape of {name!r} is unknown")
        return self.shapes[name]


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value."""
    import onnx

    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def reading_matrix(graph: Graph, node: NodeProto) -> tuple[int, int] | None:
    """Inputs of a layer that multiplies by a stored matrix, and the matrix's axis of them; None for other nodes."""
    if node.domain or len(node.input) < 2 or node.input[1] not in graph.stored or node.input[0] in graph.stored:
        return None
    matrix = graph.stored[node.input[1]]
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        return None
    if node.op_type == "MatMul":
        return matrix.shape[0], 0
    if node.op_type == "Gemm" and not attribute(node, "transA", 0):
        axis = 1 if attribute(node, "transB", 0) else 0
        return matrix.shape[axis], axis
    return None


def regrouped(before: tuple[int, ...], after: tuple[int, ...], at: Position, units: int) -> Position:
    """Where units at ``at`` in a tensor of shape ``before`` are once it has shape ``after``.

    Raises:
        NotUnits: they are spread over several axes; ``inner`` is the width of units that aren't.

    >>> regrouped((2, 6, 12), (2, 6, 3, 4), Position(2, 4), 3)
    Position(axis=2, inner=1)
    """
    stride = at.inner * prod(before[at.axis + 1 :])
    end = stride * units
    for axis in range(len(after)):
        below = prod(after[axis + 1 :])
        if below <= stride and stride % below == 0 and (below * after[axis]) % end == 0:
            return Position(axis, stride // below)
    inside = [s for s in (prod(after[i:]) for i in range(1, len(after))) if stride < s < end and s % stride == 0]
    raise NotUnits("the units are spread over several dimensions", inside[-1] // stride if inside else None)
