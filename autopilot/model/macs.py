"""Multiply-accumulates of matrix products, from shapes: what a share of the work is counted in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Shape = tuple[int | str, ...]
# Tensors that give shapes (of a Reshape) are small; only those are needed to infer shapes.
_LARGEST_SHAPE_TENSOR = 256
# The runtime's own operators, which ONNX's shape inference doesn't know -> how the outputs follow.
_LIKE_FIRST_INPUT = frozenset({
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization", "BiasGelu",
    "FastGelu", "Gelu", "QuickGelu", "BiasSoftmax", "BiasDropout", "QLinearLeakyRelu", "QLinearSigmoid",
    "QLinearSoftmax", "RotaryEmbedding", "MultiHeadAttention",
})  # fmt: skip
_PRODUCTS = frozenset({"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "FusedMatMul"})
_ATTENTION = frozenset({"Attention", "QAttention"})
_RECURRENT = frozenset({"LSTM", "GRU", "DynamicQuantizeLSTM"})


def attribute(node: NodeProto, name: str) -> int | None:
    """A node's integer attribute; None where it isn't set."""
    return next((int(a.i) for a in node.attribute if a.name == name), None)


def shapes_of(model: ModelProto, inputs: Mapping[str, Sequence[int]] | None = None) -> dict[str, Shape]:
    """Shapes of all tensors of the main graph that can be inferred; a free dimension is a text.

    ``inputs``: shapes of the model's inputs in a real request, which fix free dimensions.
    """
    import onnx
    from onnx import shape_inference

    bare = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in bare.graph.initializer:
        if prod(tensor.dims) > _LARGEST_SHAPE_TENSOR:
            tensor.ClearField("raw_data")
    _fix_inputs(bare, inputs or {})
    _put_stand_ins(bare)
    try:
        # With data propagation, shapes that the graph computes for itself (of a Reshape) are followed too.
        graph = shape_inference.infer_shapes(bare, data_prop=True).graph
    except shape_inference.InferenceError:
        return {}
    out: dict[str, Shape] = {t.name: tuple(int(d) for d in t.dims) for t in graph.initializer}
    for info in (*graph.value_info, *graph.input, *graph.output):
        if info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"):
            dims = info.type.tensor_type.shape.dim
            out[info.name] = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in dims)
    return out


def _fix_inputs(model: ModelProto, inputs: Mapping[str, Sequence[int]]) -> None:
    """Real shapes in place of the declared ones; what was inferred from those is dropped."""
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        if info.name in inputs and len(dims) == len(inputs[info.name]):
            for dim, size in zip(dims, inputs[info.name], strict=True):
                dim.dim_value = int(size)
    if inputs:
        del model.graph.value_info[:]
        for info in model.graph.output:
            info.type.tensor_type.ClearField("shape")


def _put_stand_ins(model: ModelProto) -> None:
    """The runtime's own operators replaced by standard ones whose outputs have the same shape."""
    from onnx import helper

    weights = {t.name: t for t in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in list(model.graph.node):
        nodes.append(node)
        if node.domain != "com.microsoft":
            continue
        # The sum that a normalization passes on to the next one.
        passed_on = node.output[3] if node.op_type.startswith("Skip") and len(node.output) > 3 else ""
        _replace(node, weights, model)
        if passed_on:
            nodes.append(helper.make_node("Identity", [node.input[0]], [passed_on]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _replace(node: NodeProto, weights: Mapping[str, TensorProto], model: ModelProto) -> None:
    weight = weights.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type in _LIKE_FIRST_INPUT:
        _become(node, "Identity", [node.input[0]])
    elif node.op_type == "MatMulNBits":
        dims = (attribute(node, "K") or 0, attribute(node, "N") or 0)
        _become(node, "MatMul", [node.input[0], _tensor(model, node, dims)])
    elif node.op_type in _ATTENTION and weight is not None and len(weight.dims) == 2:
        dims = (int(weight.dims[0]), int(weight.dims[1]) // 3)
        _become(node, "MatMul", [node.input[0], _tensor(model, node, dims)])
    elif node.op_type in _PRODUCTS and not any(a.name.startswith("trans") and a.i for a in node.attribute):
        second = 3 if node.op_type == "QGemm" else 1
        _become(node, "MatMul", [node.input[0], node.input[second]])


def _tensor(model: ModelProto, node: NodeProto, dims: tuple[int, int]) -> str:
    """A weight that has a shape and no values; its name."""
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type = f"{node.output[0]}.stand_in", 1
    tensor.dims.extend(dims)
    return str(tensor.name)


def _become(node: NodeProto, op_type: str, inputs: list[str]) -> None:
    """Types don't matter here: only the shapes of what comes out are read."""
    node.op_type, node.domain = op_type, ""
    del node.input[:]
    node.input.extend(inputs)
    del node.output[1:]
    del node.attribute[:]


def macs(node: NodeProto, weight_at: int, shapes: Mapping[str, Shape]) -> int | None:
    """Multiply-accumulates of one product; None when a shape is unknown.

    A free first dimension, the batch, is left out: it scales every node alike. ``weight_at`` is the
    input that holds the weight.
    """
    found = [shapes.get(name) for name in node.input]
    first = found[0] if found else None
    weight = found[weight_at] if len(found) > weight_at else None
    out = _elements(shapes.get(node.output[0]))
    if node.op_type in _RECURRENT:
        return _recurrent(found)
    if node.op_type == "MultiHeadAttention":
        return attention_core(node, shapes)
    if "Transpose" in node.op_type:
        return _times(_elements(first), weight, slice(1, None))
    if "Conv" in node.op_type:
        return _times(out, weight, slice(1, None))
    if node.op_type == "MatMulNBits":
        depth = attribute(node, "K")
        return None if out is None or depth is None else out * depth
    if node.op_type in _ATTENTION:
        projected, core = _times(_elements((first or ())[:-1]), weight, slice(None)), attention_core(node, shapes)
        return None if projected is None or core is None else projected + core
    transposed = attribute(node, "transB")
    return _times(out, weight, slice(-1, None) if transposed else slice(-2, -1))


def attention_core(node: NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """Multiply-accumulates of scores and context in a fused attention, which are no integers even in QAttention."""
    found = [shapes.get(name) for name in node.input]
    if node.op_type == "MultiHeadAttention":
        if len(found) < 3 or any(s is None or len(s) != 3 for s in found[:3]):
            return None
        query, key, value = (s for s in found[:3] if s is not None)
        once = _times(_elements(query), (key[1],), slice(None)) if key == value else None
        return None if once is None else 2 * once  # scores, then context
    weight = found[1] if len(found) > 1 else None
    if found[0] is None or len(found[0]) != 3 or weight is None or not isinstance(weight[-1], int):
        return None
    # Equal widths of query, key and value: a third of the projection each.
    rows = _times(_elements(found[0][:-1]), (found[0][1],), slice(None))
    return None if rows is None else rows * 2 * (weight[-1] // 3)


def _recurrent(found: Sequence[Shape | None]) -> int | None:
    """A step multiplies input and state with every gate's weights; there are as many as the sequence is long."""
    if len(found) < 3 or found[0] is None or len(found[0]) != 3:
        return None
    steps = _elements(found[0][:2]) if isinstance(found[0][0], int) else None
    weights = [_elements(w) if w is not None and all(isinstance(d, int) for d in w) else None for w in found[1:3]]
    known = [w for w in weights if w is not None]
    return steps * sum(known) if steps is not None and len(known) == 2 else None


def _elements(shape: Shape | None) -> int | None:
    """Elements of an activation, a free first dimension left out; None when another one is free."""
    if not shape:
        return None
    rest = shape if isinstance(shape[0], int) else shape[1:]
    numbers = [d for d in rest if isinstance(d, int)]
    return prod(numbers) if len(numbers) == len(rest) else None


def _times(count: int | None, weight: Shape | None, part: slice) -> int | None:
    dims = weight[part] if weight else ()
    numbers = [d for d in dims if isinstance(d, int)]
    return count * prod(numbers) if count is not None and dims and len(numbers) == len(dims) else None
