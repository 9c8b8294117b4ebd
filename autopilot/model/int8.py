"""What of a quantized file really runs in integer kernels, read from the runtime's own optimized graph."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.model.files import parse
from autopilot.model.graph import all_graphs
from autopilot.profile import Int8Audit

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Matrix-multiply-like operators -> which input holds the weight.
FLOAT_MATMUL = {
    "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "FusedConv": 1, "NhwcFusedConv": 1, "FusedGemm": 1,
    "FusedMatMul": 1, "Attention": 1, "MultiHeadAttention": 1, "LSTM": 1, "GRU": 1,
}  # fmt: skip
INTEGER_MATMUL = {
    "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "QLinearConvTranspose": 3, "ConvInteger": 1, "MatMulInteger": 1,
    "ConvIntegerToFloat": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1, "QAttention": 1,
    "DynamicQuantizeLSTM": 1, "MatMulNBits": 1, "MatMulBnb4": 1,
}  # fmt: skip
MATMUL = frozenset(FLOAT_MATMUL) | frozenset(INTEGER_MATMUL)
# Tensors that give shapes (of a Reshape) are small; only those are needed to infer shapes.
_LARGEST_SHAPE_TENSOR = 256
# Between a DequantizeLinear and the product it feeds, exporters put these.
_PASS_THROUGH = frozenset({"Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze", "Flatten"})
_DEEP_ENOUGH = 4
Shape = tuple[int | str, ...]


def int8_audit(artifact: Path, optimized: Path) -> Int8Audit:
    """Count the matmul-like nodes that ``artifact`` claims are integer and those that ``optimized`` runs so.

    A node claims int8 when it is an integer operator or its weight (the second factor) comes out of a
    DequantizeLinear: a float product of an activation that was quantized for others claims nothing.
    The optimized graph is the one the runtime wrote after fusing
    (``SessionOptions.optimized_model_filepath``): a DequantizeLinear still in front of a float
    product there is int8 on paper only. Weight-only products (MatMulNBits) count as executed: the
    integers are their weights, which is all they claim.

    Raises:
        ModelError: one of the files is missing or no ONNX model.
    """
    claimed_by = parse(artifact)
    claimed = sum(_claims(node, producers) for node, producers in _walk(claimed_by))
    ran = [node for node, _ in _walk(parse(optimized)) if node.op_type in MATMUL]
    executed = sum(node.op_type in INTEGER_MATMUL for node in ran)
    still_float = {node.name for node in ran if node.op_type in FLOAT_MATMUL}
    return Int8Audit(claimed, executed, len(ran), _mac_share(claimed_by, still_float, executed))


def _walk(model: ModelProto) -> Iterator[tuple[NodeProto, dict[str, NodeProto]]]:
    """Every node with the producers, by output name, of its graph."""
    for graph in all_graphs(model):
        producers = {o: n for n in graph.node for o in n.output if o}
        for node in graph.node:
            yield node, producers


def _claims(node: NodeProto, producers: dict[str, NodeProto]) -> bool:
    if node.op_type in INTEGER_MATMUL:
        return True
    if node.op_type not in FLOAT_MATMUL:
        return False
    where = FLOAT_MATMUL[node.op_type]
    return len(node.input) > where and _dequantized(node.input[where], producers)


def _dequantized(name: str, producers: dict[str, NodeProto]) -> bool:
    for _ in range(_DEEP_ENOUGH):
        producer = producers.get(name)
        if producer is None:
            return False
        if producer.op_type == "DequantizeLinear":
            return True
        if producer.op_type not in _PASS_THROUGH:
            return False
        name = producer.input[0]
    return False


def _mac_share(artifact: ModelProto, still_float: set[str], executed: int) -> float | None:
    """Share of multiply-accumulates in integer kernels; None when shapes or kernels can't be told.

    Fused nodes carry no shapes, so that shapes are those of the artifact: a node that claims int8
    and isn't among the float ones of the optimized graph (unfused nodes keep their names) ran so.
    The first dimension of an activation, the batch, may be symbolic: it scales every node alike.
    """
    products = [(n, _claims(n, p)) for n, p in _walk(artifact) if n.op_type in MATMUL]
    ran = [claims and node.name not in still_float for node, claims in products]
    if sum(ran) != executed or len(products) != sum(n.op_type in MATMUL for n in artifact.graph.node):
        return None
    shapes = _shapes(artifact)
    macs = [_macs(node, shapes) for node, _ in products]
    known = [m for m in macs if m is not None]
    total = sum(known)
    if len(known) != len(macs) or not total:
        return None
    return sum(m for m, is_integer in zip(known, ran, strict=True) if is_integer) / total


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """Shapes of all tensors of the main graph that inference finds; weights lose their values on the way."""
    import onnx
    from onnx import shape_inference

    bare = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in bare.graph.initializer:
        if prod(tensor.dims) > _LARGEST_SHAPE_TENSOR:
            tensor.ClearField("raw_data")
    try:
        graph = shape_inference.infer_shapes(bare).graph
    except shape_inference.InferenceError:
        return {}
    out: dict[str, Shape] = {t.name: tuple(int(d) for d in t.dims) for t in graph.initializer}
    for info in (*graph.value_info, *graph.input, *graph.output):
        if info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"):
            dims = info.type.tensor_type.shape.dim
            out[info.name] = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in dims)
    return out


def _per_sample(shape: Shape | None) -> int | None:
    """Elements of an activation without its first dimension; None when another one is symbolic."""
    if not shape:
        return None
    numbers = [d for d in shape[1:] if isinstance(d, int)]
    return prod(numbers) if len(numbers) == len(shape) - 1 else None


def _macs(node: NodeProto, shapes: dict[str, Shape]) -> int | None:
    """Multiply-accumulates of one node for one sample."""
    where = FLOAT_MATMUL.get(node.op_type) or INTEGER_MATMUL[node.op_type]
    weight = shapes.get(node.input[where]) if len(node.input) > where else None
    if "Transpose" in node.op_type:
        return _times(_per_sample(shapes.get(node.input[0])), weight, slice(1, None))
    out = _per_sample(shapes.get(node.output[0]))
    if "Conv" in node.op_type:
        return _times(out, weight, slice(1, None))
    if node.op_type in ("LSTM", "DynamicQuantizeLSTM", "GRU", "MultiHeadAttention"):
        # Their cost is in the number of steps, which may be the first dimension or unknown.
        return None
    if node.op_type == "MatMulNBits":
        depth = next((a.i for a in node.attribute if a.name == "K"), None)
        return None if out is None or depth is None else out * depth
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    if node.op_type in ("Attention", "QAttention") and weight and len(weight) == 2:
        rows = _per_sample((shapes.get(node.input[0]) or ())[:-1])
        return _times(rows, weight, slice(None))
    return _times(out, weight, slice(-1, None) if transposed else slice(-2, -1))


def _times(count: int | None, weight: Shape | None, part: slice) -> int | None:
    dims = weight[part] if weight else ()
    if count is None or not dims or not all(isinstance(d, int) for d in dims):
        return None
    return count * prod(d for d in dims if isinstance(d, int))
