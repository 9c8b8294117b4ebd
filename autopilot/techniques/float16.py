"""float16: the whole computation in half precision, or only the stored weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Scalar
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.needs import Ask
from autopilot.recipe import Recipe
from autopilot.techniques import _onnx
from autopilot.techniques._halves import store_weights
from autopilot.techniques._rules import already_quantized

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSET = 13  # below, several operators take no float16


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the float16 model, inputs and outputs as they were; ``params``: scope.

    Raises:
        Unsupported: quantized already, no float32 weights, or, under ``compute``, subgraphs or no operator that
            computes in float16.
    """
    from onnx import TensorProto

    model = _onnx.load(source)
    _onnx.refuse_quantized(model)
    model = _onnx.prepare_for_quantization(_onnx.ensure_opset(model, _OPSET))
    if params["scope"] == "storage":
        store_weights(model, TensorProto.FLOAT16)
    else:
        model = _convert(model)
    _onnx.save(model, target_folder / _onnx.MODEL)


def _convert(model: ModelProto) -> ModelProto:
    from onnx import TensorProto
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    if any(a.HasField("g") or a.graphs for n in model.graph.node for a in n.attribute):
        # The converter casts an outer float32 value only where the main graph reads it.
        raise Unsupported("models with If, Loop or Scan can't be computed in float16.", "scope: storage takes them.")
    if not any(t.data_type == TensorProto.FLOAT for t in model.graph.initializer):
        raise Unsupported("the model has no float32 weights to convert.")
    try:
        converted = convert_float_to_float16(model, keep_io_types=True)
    except Exception as exc:
        # The converter raises ValueError, InferenceError and AssertionError for models it can't type.
        _onnx.pass_on_memory(exc)
        message = f"the float16 conversion failed ({type(exc).__name__}: {_onnx.first_line(exc)})."
        raise VariantFailed(Failure.BUILD_ERROR, message) from exc
    if not _computes_in_half(converted):
        message = "each operator of the model is one that stays in float32: only roundings would be added."
        raise Unsupported(message, "scope: storage stores the weights in float16.")
    wrapped = OnnxModel(converted)
    wrapped.topological_sort(is_deterministic=True)  # the converter appends its Cast nodes at the end
    sorted_model: ModelProto = wrapped.model
    return sorted_model


def _computes_in_half(model: ModelProto) -> bool:
    """Whether a node takes a float16 tensor other than to widen it: the converter leaves some kinds in float32."""
    from onnx import TensorProto

    half = {t.name for t in model.graph.initializer if t.data_type == t.FLOAT16}
    for node in model.graph.node:
        told = {a.name: a for a in node.attribute}
        narrows = node.op_type == "Cast" and told["to"].i == TensorProto.FLOAT16
        stored = node.op_type == "Constant" and "value" in told and told["value"].t.data_type == TensorProto.FLOAT16
        half |= set(node.output) if narrows or stored else set()
    return any(half.intersection(n.input) for n in model.graph.node if n.op_type != "Cast")


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Another change of precision before this one leaves no float32 weights."""
    return already_quantized(earlier)


TECHNIQUE = Technique(
    name="float16",
    slot=Slot.PRECISION,
    version=1,
    parameters={"scope": Choice(("compute", "storage"))},
    apply=apply,
    summary="half precision: computed so (GPU), or weights stored so and widened at load (half the file)",
    # The CPU provider computes float16 at or below float32's speed: spaces for GPUs switch this on.
    on_by_default=False,
    asks=(Ask("float16", "scope", ("compute",)),),
    refuses=refuses,
)
