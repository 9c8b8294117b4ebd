"""What of a quantized file really runs in integer kernels, read from the runtime's own optimized graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.model.files import parse
from autopilot.model.graph import all_graphs
from autopilot.model.macs import Shape, attention_core, attribute, macs, shapes_of
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
# MatMulNBits computes in float from the integers that it stores unless its accuracy_level asks for int8.
_INT8_COMPUTE = 4
# Between a DequantizeLinear and the product it feeds, exporters put these.
_PASS_THROUGH = frozenset({"Transpose", "Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze", "Flatten"})
_DEEP_ENOUGH = 4


def int8_audit(artifact: Path, optimized: Path, inputs: Mapping[str, Sequence[int]] | None = None) -> Int8Audit:
    """Count the matmul-like nodes that ``artifact`` claims are integer and those that ``optimized`` runs so.

    A node claims int8 when it is an integer operator or its weight (the second factor) comes out of a
    DequantizeLinear: a float product of an activation that was quantized for others claims nothing.
    The optimized graph is the one the runtime wrote after fusing
    (``SessionOptions.optimized_model_filepath``): a DequantizeLinear still in front of a float
    product there is int8 on paper only. Weight-only products (MatMulNBits) count as executed: the
    integers are their weights, which is all they claim; among the multiply-accumulates they count where
    they ask for int8 arithmetic (``accuracy_level`` 4). ``inputs``: shapes of the model's inputs in a real
    request, without which free dimensions leave ``mac_share`` unknown.

    Raises:
        ModelError: one of the files is missing or no ONNX model.
    """
    claimed_by = parse(artifact)
    claimed = sum(claims_int8(node, producers) for node, producers in walk(claimed_by))
    ran = [node for node, _ in walk(parse(optimized)) if node.op_type in MATMUL]
    executed = sum(node.op_type in INTEGER_MATMUL for node in ran)
    still_float = {node.name for node in ran if node.op_type in FLOAT_MATMUL}
    return Int8Audit(claimed, executed, len(ran), _mac_share(claimed_by, still_float, executed, inputs))


def walk(model: ModelProto) -> Iterator[tuple[NodeProto, dict[str, NodeProto]]]:
    """Every node with the producers, by output name, of its graph."""
    for graph in all_graphs(model):
        producers = {o: n for n in graph.node for o in n.output if o}
        for node in graph.node:
            yield node, producers


def claims_int8(node: NodeProto, producers: dict[str, NodeProto]) -> bool:
    """Whether ``node`` is an integer product, or its weight comes out of a DequantizeLinear."""
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


def _mac_share(
    artifact: ModelProto, still_float: set[str], executed: int, inputs: Mapping[str, Sequence[int]] | None
) -> float | None:
    """Share of multiply-accumulates in integer arithmetic; None when shapes or kernels can't be told.

    Fused nodes carry no shapes, so that shapes are those of the artifact: a node that claims int8
    and isn't among the float ones of the optimized graph (unfused nodes keep their names) ran so.
    """
    products = [(n, claims_int8(n, p)) for n, p in walk(artifact) if n.op_type in MATMUL]
    ran = [claims and node.name not in still_float for node, claims in products]
    if sum(ran) != executed or len(products) != sum(n.op_type in MATMUL for n in artifact.graph.node):
        return None
    shapes = shapes_of(artifact, inputs)
    whole = integer = 0
    for (node, _), is_integer in zip(products, ran, strict=True):
        cost = macs(node, FLOAT_MATMUL.get(node.op_type) or INTEGER_MATMUL[node.op_type], shapes)
        if cost is None:
            return None
        whole += cost
        integer += _integer(node, cost, shapes) if is_integer else 0
    return integer / whole if whole else None


def _integer(node: NodeProto, cost: int, shapes: Mapping[str, Shape]) -> int:
    """Of the ``cost`` of a node with integer weights: what is multiplied as integers."""
    if node.op_type == "MatMulBnb4":
        return 0
    if node.op_type == "MatMulNBits":
        return cost if attribute(node, "accuracy_level") == _INT8_COMPUTE else 0
    if node.op_type in ("Attention", "QAttention"):
        return cost - (attention_core(node, shapes) or 0)
    return cost
