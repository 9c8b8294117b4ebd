"""Which nodes that a provider of a device left on the host only compute shapes, by what their data descend from.

ONNX Runtime puts what follows from a Shape on the host, a few integers that the host needs to launch the next kernel
(GetCpuPreferredNodes in onnxruntime/core/framework/fallback_cpu_capability.cc): nodes whose every input is another such
value, a small constant, or an input of the graph. It puts the followers of a node *without a kernel* there in the same
way, whatever they are of; operators alone don't tell one from the other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.errors import ModelError
from autopilot.model.files import parse
from autopilot.model.graph import STANDARD, all_graphs, subgraphs
from autopilot.profile import HOST, HOST_SHAPES, MOST_IN_SHAPES, SHAPE_OPERATORS, Placement

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

Key = tuple[str, str]  # name and operator of a node
_SOURCES = frozenset({"Shape", "Size"})
# The input that says how large the output is, which stays small only where that is a constant that says so. Other
# operators that make much of little (Range, ConstantOfShape) have kernels on devices that read their sizes on the host:
# where they run there themselves they lack one, and what they make may be large.
_SIZED_BY = {"Expand": 1, "Tile": 1}


def shapes_apart(placement: Placement, artifact: Path) -> Placement:
    """``placement`` with the nodes of ``artifact`` that compute shapes on the host counted apart from other work there.

    Nodes that the file doesn't know by name (the body of a function, once it is inlined) are judged by their operator.
    """
    if not placement.host:
        return placement
    try:
        model = parse(artifact)
    except ModelError:  # the runtime reads formats that we don't
        known, shapes = frozenset[Key](), Counter[Key]()
    else:
        known = frozenset((node.name, node.op_type) for graph in all_graphs(model) for node in graph.node)
        shapes = shape_nodes(model)
    left = Counter(placement.host)
    # Nodes may share a name, or have none: no more of them compute shapes than do in the file.
    found = (left & shapes).total()
    found += sum(n for key, n in left.items() if key not in known and key[1] in SHAPE_OPERATORS)
    nodes = {**placement.nodes, HOST: placement.nodes[HOST] - found, HOST_SHAPES: found}
    return replace(placement, nodes={name: count for name, count in nodes.items() if count}, host=())


def shape_nodes(model: ModelProto) -> Counter[Key]:
    """How many nodes of each name and operator work on nothing but shapes and small constants; Shape itself does."""
    found: Counter[Key] = Counter()
    _follow(model.graph, _Known(), found)
    return found


@dataclass(frozen=True, slots=True)
class _Known:
    """Values by name: those that descend from shapes, and other small ones.

    ``small`` maps constants of whole numbers to their product, all else to None.
    """

    shapes: frozenset[str] = frozenset()
    small: Mapping[str, int | None] = field(default_factory=dict)


def _follow(graph: GraphProto, outer: _Known, found: Counter[Key]) -> None:
    shapes, small = set(outer.shapes), dict(outer.small)
    small.update((value.name, None) for value in graph.input if _is_small(value))
    small.update((t.name, _product(t)) for t in graph.initializer if math.prod(t.dims) <= MOST_IN_SHAPES)
    for node in graph.node:  # sorted: what a node reads comes before it
        for inner in subgraphs(node):
            _follow(inner, _Known(frozenset(shapes), small), found)
        if node.op_type == "Constant":
            small.update(_constant(node))
        elif node.domain in STANDARD and (node.op_type in _SOURCES or _is_of_shapes(node, shapes, small)):
            shapes.update(name for name in node.output if name)
            found[node.name, node.op_type] += 1


def _is_of_shapes(node: NodeProto, shapes: set[str], small: Mapping[str, int | None]) -> bool:
    """Whether a node reads shapes, nothing large, and makes nothing large of it."""
    read = [name for name in node.input if name]
    if node.op_type not in SHAPE_OPERATORS or shapes.isdisjoint(read):
        return False
    if node.op_type in _SIZED_BY:
        size = small.get(node.input[_SIZED_BY[node.op_type]])
        if size is None or size > MOST_IN_SHAPES:
            return False
    return all(name in shapes or name in small for name in read)


def _is_small(value: ValueInfoProto) -> bool:
    """Whether an input has so few elements whatever is fed: free dimensions may be anything."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return False
    dims = value.type.tensor_type.shape.dim
    return all(d.HasField("dim_value") for d in dims) and math.prod(d.dim_value for d in dims) <= MOST_IN_SHAPES


def _constant(node: NodeProto) -> dict[str, int | None]:
    """The value of a Constant where it is small."""
    for attribute in node.attribute:
        if attribute.name == "value" and math.prod(attribute.t.dims) <= MOST_IN_SHAPES:
            return {node.output[0]: _product(attribute.t)}
        if attribute.name in ("value_int", "value_ints"):
            numbers = [attribute.i] if attribute.name == "value_int" else list(attribute.ints)
            return {node.output[0]: math.prod(numbers)} if len(numbers) <= MOST_IN_SHAPES else {}
        # They are no sizes, and may be infinite (what a mask adds).
        if attribute.name in ("value_float", "value_floats") and len(attribute.floats) <= MOST_IN_SHAPES:
            return {node.output[0]: None}
    return {}


def _product(tensor: TensorProto) -> int | None:
    """The product of a small tensor's values; None where they are no whole numbers, or in another file."""
    from onnx import TensorProto, numpy_helper

    whole = (TensorProto.INT32, TensorProto.INT64)
    if tensor.data_type not in whole or tensor.data_location == TensorProto.EXTERNAL:
        return None
    return math.prod(int(x) for x in numpy_helper.to_array(tensor).ravel())
