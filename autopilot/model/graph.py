"""Walking ONNX graphs: nodes, subgraphs and weights, wherever the format allows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# Domains whose opset number is "the" opset of a model.
STANDARD = ("", "ai.onnx")


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs a node carries as attributes (If, Loop, Scan), not their own subgraphs."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """``graph`` and every graph nested in it, outermost first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def all_graphs(model: ModelProto) -> Iterator[GraphProto]:
    """Every graph of a model: the main one, nested ones, and those nested in its functions."""
    yield from graphs(model.graph)
    for function in model.functions:
        for node in function.node:
            for inner in subgraphs(node):
                yield from graphs(inner)


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of a model: main graph, subgraphs and model-local functions."""
    for graph in all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def initializers(model: ModelProto) -> Iterator[TensorProto]:
    """Every stored tensor that a graph names, sparse ones as their values and indices."""
    for graph in all_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def constants(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored in a node's attribute (Constant nodes among them)."""
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse = (attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()
            for value in (*sparse, *attribute.sparse_tensors):
                yield from (value.values, value.indices)


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every stored tensor of a model, wherever it is."""
    yield from initializers(model)
    yield from constants(model)


def opset(model: ModelProto) -> int:
    """The standard operator set's version; 0 where the model imports none."""
    return max((int(e.version) for e in model.opset_import if e.domain in STANDARD), default=0)
