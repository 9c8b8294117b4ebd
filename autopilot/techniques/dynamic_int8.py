"""Dynamic int8: weights as integers in the file, activations quantized as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Scalar
from autopilot.errors import Unsupported
from autopilot.model.graph import all_graphs, nodes, subgraphs
from autopilot.model.inspect import is_integer_op
from autopilot.needs import Ask
from autopilot.recipe import Recipe
from autopilot.techniques import _onnx
from autopilot.techniques._rules import (
    already_quantized,
    int8_products_saturate,
    no_dynamic_kernels,
    sensible_numbers,
)
from autopilot.techniques._text import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

    from autopilot.target import Target

# ONNX Runtime turns a Gemm into MatMul + Add itself; a fused Attention is quantized as a whole.
_OP_TYPES = {
    "matmul": ["MatMul", "Attention"],
    # Embeddings too: they are most of a small text model's size.
    "matmul_gather": ["MatMul", "Attention", "Gather", "EmbedLayerNormalization"],
    # Dynamic convolutions were seen 6 times slower than float on AVX512-VNNI; LSTMs gain.
    "all": ["MatMul", "Attention", "LSTM", "Conv"],
}
_OPSET = 11  # the first with DynamicQuantizeLinear


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the quantized model; ``params``: op_types, weight_type, per_channel, reduce_range.

    Raises:
        Unsupported: quantized already, or no operator of the chosen types has a stored weight.
    """
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = _onnx.load(source)
    _onnx.refuse_quantized(model)
    model = _onnx.prepare_for_quantization(_onnx.ensure_opset(model, _OPSET))
    target = target_folder / _onnx.MODEL
    with quiet():
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=_OP_TYPES[str(params["op_types"])],
            per_channel=bool(params["per_channel"]),
            reduce_range=bool(params["reduce_range"]),
            weight_type=QuantType.QInt8 if params["weight_type"] == "int8" else QuantType.QUInt8,
            nodes_to_exclude=_other_floats(model),
            use_external_data_format=_onnx.stored_bytes(model) > _onnx.EXTERNAL_ABOVE_BYTES,
            extra_options={
                "EnableSubgraph": any(True for n in model.graph.node for _ in subgraphs(n)),
                # ONNX's type inference ends at the first fused operator, the quantizer's knowledge with it.
                "DefaultTensorType": TensorProto.FLOAT,
            },
        )
    quantized = _onnx.load(target)
    found = Counter(n.op_type for n in nodes(quantized) if is_integer_op(n.op_type))
    if not found:
        kinds = ", ".join(_OP_TYPES[str(params["op_types"])])
        raise Unsupported(f"there is nothing to quantize: no node of the kinds {kinds} has a stored float weight.")
    _onnx.drop_unused_domains(quantized)
    _onnx.save(quantized, target)


def _other_floats(model: ModelProto) -> list[str]:
    """Names of nodes with stored float16, bfloat16 or float64 inputs, which the quantizer takes for float32.

    It turns a Gemm into a MatMul of another name before it looks at these.
    """
    names = []
    for graph in all_graphs(model):
        stored = {t.name for t in graph.initializer if t.data_type in (t.FLOAT16, t.BFLOAT16, t.DOUBLE)}
        names += [name for n in graph.node if stored & set(n.input) for name in (n.name, f"{n.name}_MatMul")]
    return names


def prefer(target: Target) -> tuple[Mapping[str, Scalar], ...]:
    """Per-channel weights first; 7-bit weights where 8-bit products saturate (AVX2 without VNNI)."""
    narrow = int8_products_saturate(target)
    return (
        {"op_types": "matmul", "weight_type": "int8", "per_channel": True, "reduce_range": narrow},
        {"op_types": "matmul_gather", "weight_type": "int8", "per_channel": True, "reduce_range": narrow},
    )


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Another change of precision before this one leaves no float weights."""
    return already_quantized(earlier)


TECHNIQUE = Technique(
    name="dynamic_int8",
    slot=Slot.PRECISION,
    version=1,
    parameters={
        "op_types": Choice(("matmul", "matmul_gather", "all")),
        "weight_type": Choice(("int8", "uint8")),
        "per_channel": Choice((True, False)),
        "reduce_range": Choice((False, True)),
    },
    apply=apply,
    summary="int8 weights, activations quantized at run time; no calibration",
    claims_int8=True,
    asks=(Ask("int8"),),
    available=no_dynamic_kernels,
    prefer=prefer,
    sensible=lambda target: {k: v for k, v in sensible_numbers(target).items() if k == "reduce_range"},
    refuses=refuses,
)
