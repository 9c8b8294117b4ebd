"""bfloat16: weights stored with float32's range and 8 bits of precision, widened at load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Scalar
from autopilot.recipe import Recipe
from autopilot.techniques import _onnx
from autopilot.techniques._halves import store_weights
from autopilot.techniques._rules import already_quantized

_OPSET = 13  # the first whose Cast takes bfloat16


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the model with bfloat16 weights; ``params``: scope.

    Only storage: ONNX Runtime's CPU provider has no bfloat16 kernels for products ("NOT_IMPLEMENTED"),
    so that computing in it is nothing this could verify.

    Raises:
        Unsupported: quantized already, or no float32 weights large enough.
    """
    from onnx import TensorProto

    model = _onnx.load(source)
    _onnx.refuse_quantized(model)
    model = _onnx.prepare_for_quantization(_onnx.ensure_opset(model, _OPSET))
    store_weights(model, TensorProto.BFLOAT16)
    _onnx.save(model, target_folder / _onnx.MODEL)


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Another change of precision before this one leaves no float32 weights."""
    return already_quantized(earlier)


TECHNIQUE = Technique(
    name="bfloat16",
    slot=Slot.PRECISION,
    version=1,
    parameters={"scope": Choice(("storage",))},
    apply=apply,
    summary="weights stored in bfloat16 and widened at load: half the file, float32's speed",
    # A size technique with less precision than float16's: spaces for large value ranges switch it on.
    on_by_default=False,
    refuses=refuses,
)
