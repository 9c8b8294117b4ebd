"""Bring a model into the form that quantizers understand, computing the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from autopilot.model.graph import STANDARD, graphs, nodes, opset, subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# The first IR version whose initializers need not be graph inputs is 4; 8 goes with opset 15.
MINIMUM_IR = 8
# What exporters put between a stored weight and the product that uses it.
_FOLDABLE = frozenset({"Cast", "Transpose", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_MULTIPLIES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def prepare_for_quantization(model: ModelProto) -> ModelProto:
    """A copy that quantizers understand, computing the same.

    Functions inlined; ``value_info`` dropped (stale shapes make ``quantize_dynamic`` raise "Inferred
    shape and existing shape differ" on torch 2.13 exports); initializers no longer graph inputs;
    Constant nodes lifted into initializers, in subgraphs too; weights behind a Cast or Transpose computed;
    a Gemm's stored bias one number a column; every node with a name of its own; each operator set told once.
    """
    import onnx
    from onnx import inliner

    # The inliner returns a new model; without functions a copy keeps the caller's as it was.
    out = inliner.inline_local_functions(model) if model.functions else onnx.ModelProto()
    if not model.functions:
        out.CopyFrom(model)
    out.ir_version = max(out.ir_version, MINIMUM_IR)
    _tell_sets_once(out)
    for graph in graphs(out.graph):
        del graph.value_info[:]
        _lift_constants(graph)
        stored = {t.name for t in graph.initializer}
        kept = [i for i in graph.input if i.name not in stored]
        if len(kept) != len(graph.input):
            del graph.input[:]
            graph.input.extend(kept)
    for graph in graphs(out.graph):
        _fold_weights(graph, opset(out))
        _spread_biases(graph)
    _drop_unused(out.graph)
    _name_nodes(out)
    return out


def _tell_sets_once(model: ModelProto) -> None:
    """One version for each operator set: skl2onnx 1.20 names ONNX's own twice, which quantizers refuse."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain in STANDARD else entry.domain
        versions[domain] = max(versions.get(domain, 0), entry.version)
    if len(versions) == len(model.opset_import):
        return
    del model.opset_import[:]
    for domain, version in versions.items():
        model.opset_import.add(domain=domain, version=version)


def _fold_weights(graph: GraphProto, version: int) -> None:
    """Compute what stands between a stored weight and a product: Cast of float16 weights, Transpose."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    producers = {n.output[0]: n for n in graph.node if n.op_type in _FOLDABLE and n.domain in STANDARD}
    stored = {t.name: t for t in graph.initializer}
    outputs = {o.name for o in graph.output}
    folded: list[NodeProto] = []

    def fold(name: str) -> bool:
        if name in stored:
            return True
        node = producers.get(name)
        if node is None or name in outputs or not all(fold(i) for i in node.input if i):
            return False
        values = {i: numpy_helper.to_array(stored[i]) for i in node.input if i}
        outcome = cast(list[Any], ReferenceEvaluator(node, opsets={"": version}).run(None, values))
        stored[name] = numpy_helper.from_array(np.ascontiguousarray(outcome[0]), name)
        graph.initializer.append(stored[name])
        folded.append(node)
        return True

    for node in graph.node:
        if node.op_type in _MULTIPLIES:
            for name in node.input[1:2]:
                fold(name)
    for node in folded:
        graph.node.remove(node)


def _spread_biases(graph: GraphProto) -> None:
    """Give each Gemm whose stored bias is the same in every row that bias as one number a column, shape [N].

    A Gemm may add any shape that broadcasts; ONNX Runtime's quantizers know [N] alone and fail at [1, N], which is
    what ONNX Runtime makes of scikit-learn's networks (skl2onnx 1.20) when it fuses MatMul and Add.
    """
    from onnx import numpy_helper

    stored = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type != "Gemm" or node.domain not in STANDARD or len(node.input) < 3:
            continue
        weight, bias = stored.get(node.input[1]), stored.get(node.input[2])
        if weight is None or bias is None:
            continue
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        columns = int(weight.dims[0 if transposed else 1])
        if list(bias.dims) == [columns] or any(d != 1 for d in bias.dims[:-1]):  # right already, or it differs by row
            continue
        name = f"{bias.name}_of_{columns}_columns"
        if name not in stored:
            row = np.broadcast_to(numpy_helper.to_array(bias).reshape(-1), (columns,))
            stored[name] = numpy_helper.from_array(np.ascontiguousarray(row), name)
            graph.initializer.append(stored[name])
        node.input[2] = name


def _drop_unused(graph: GraphProto) -> None:
    """Remove initializers that nothing reads any more, here or in subgraphs."""
    used = {o.name for o in graph.output} | set(_read_below(graph))
    kept = [t for t in graph.initializer if t.name in used]
    if len(kept) != len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _read_below(graph: GraphProto) -> set[str]:
    """Every name that a node reads or a subgraph returns, in ``graph`` and below."""
    names: set[str] = set()
    for node in graph.node:
        names.update(node.input)
        for inner in subgraphs(node):
            names |= {o.name for o in inner.output} | _read_below(inner)
    return names


def gemm_to_matmul(model: ModelProto) -> None:
    """Rewrite each Gemm of a stored 2-D weight (no scaling, A as it is) as MatMul + Add, in place."""
    from onnx import helper, numpy_helper

    for graph in graphs(model.graph):
        stored = {t.name: t for t in graph.initializer}
        made: list[NodeProto] = []
        for node in graph.node:
            settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            plain = settings.get("alpha", 1.0) == 1.0 == settings.get("beta", 1.0) and not settings.get("transA", 0)
            if node.op_type != "Gemm" or node.domain not in STANDARD or not plain or node.input[1] not in stored:
                made.append(node)
                continue
            weight = node.input[1]
            if settings.get("transB", 0):
                weight = f"{node.input[1]}_transposed"
                if weight not in stored:
                    value = np.ascontiguousarray(numpy_helper.to_array(stored[node.input[1]]).T)
                    stored[weight] = numpy_helper.from_array(value, weight)
                    graph.initializer.append(stored[weight])
            has_bias = len(node.input) > 2 and bool(node.input[2])
            product = f"{node.output[0]}_product" if has_bias else node.output[0]
            made.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=f"{node.name}_matmul"))
            if has_bias:
                inputs = [product, node.input[2]]
                made.append(helper.make_node("Add", inputs, [node.output[0]], name=f"{node.name}_add"))
        del graph.node[:]
        graph.node.extend(made)
    _drop_unused(model.graph)


def _lift_constants(graph: GraphProto) -> None:
    outputs = {o.name for o in graph.output}
    kept: list[NodeProto] = []
    for node in graph.node:
        value = constant_value(node) if node.output and node.output[0] not in outputs else None
        if value is None:
            kept.append(node)
            continue
        value.name = node.output[0]
        graph.initializer.append(value)
    if len(kept) != len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)


def constant_value(node: NodeProto) -> TensorProto | None:
    """A copy of what a Constant node gives; None for other nodes, sparse and string constants."""
    import onnx
    from onnx import numpy_helper

    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        copy = onnx.TensorProto()
        copy.CopyFrom(attribute.t)
        return copy
    plain: dict[str, Any] = {
        "value_float": lambda: np.float32(attribute.f),
        "value_int": lambda: np.int64(attribute.i),
        "value_floats": lambda: np.array(attribute.floats, np.float32),
        "value_ints": lambda: np.array(attribute.ints, np.int64),
    }
    make = plain.get(attribute.name)
    return numpy_helper.from_array(np.asarray(make())) if make else None


def _name_nodes(model: ModelProto) -> None:
    """Quantizers select nodes by name: give the nameless and the doubled ones a stable name."""
    seen: set[str] = set()
    for i, node in enumerate(nodes(model)):
        if not node.name or node.name in seen:
            name = f"{node.name or node.op_type}_n{i}"
            while name in seen:
                name += "_"
            node.name = name
        seen.add(node.name)
