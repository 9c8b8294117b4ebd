"""Weight-only quantization: blocks of 4 or 8 bits with a scale each, products in float or int8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Scalar
from autopilot.errors import Unsupported
from autopilot.model.graph import nodes, tensors
from autopilot.model.inspect import WEIGHT_ONLY
from autopilot.needs import Ask
from autopilot.recipe import Recipe
from autopilot.techniques import _onnx
from autopilot.techniques._prepare import gemm_to_matmul
from autopilot.techniques._rules import already_quantized
from autopilot.techniques._text import quiet

if TYPE_CHECKING:
    from onnx import ModelProto


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the model with MatMulNBits; ``params``: bits, block_size, symmetric, accuracy_level, op_types.

    Raises:
        Unsupported: quantized already, or no MatMul or Gemm has a stored 2-D float weight.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = _onnx.load(source)
    _onnx.refuse_quantized(model)
    # Never quant_pre_process before this: it leaves nothing to quantize (0 of 12 seen).
    model = _onnx.prepare_for_quantization(model)
    kinds: tuple[str, ...] = ("MatMul",)
    if params["op_types"] == "matmul_gather" and params["bits"] == 4 and _embeddings(model):
        kinds = ("MatMul", "Gather")
    gemm_to_matmul(model)
    imports = [(e.domain, e.version) for e in model.opset_import]
    with quiet():
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=_whole(params["bits"]),
            block_size=_whole(params["block_size"]),
            is_symmetric=bool(params["symmetric"]),
            accuracy_level=_whole(params["accuracy_level"]),
            op_types_to_quantize=kinds,
            nodes_to_exclude=sorted((_gathers(model) - _embeddings(model)) | _doubles(model)),
        )
        quantizer.process()
    quantized = quantizer.model.model
    # For 4-bit embeddings it renames the opset to 21 without converting a node; only the IR version is needed.
    for entry in quantized.opset_import:
        entry.version = dict(imports).get(entry.domain, entry.version)
    if not any(n.op_type in WEIGHT_ONLY for n in nodes(quantized)):
        raise Unsupported("there is nothing to quantize: no MatMul or Gemm has a stored two-dimensional float weight.")
    _onnx.drop_unused_domains(quantized)
    _onnx.save(quantized, target_folder / _onnx.MODEL)


def _gathers(model: ModelProto) -> set[str]:
    return {n.name for n in nodes(model) if n.op_type == "Gather"}


def _embeddings(model: ModelProto) -> set[str]:
    """Names of Gather nodes that take rows out of a stored float matrix."""
    tables = {t.name for t in model.graph.initializer if t.data_type == t.FLOAT and len(t.dims) == 2}
    return {n.name for n in nodes(model) if n.op_type == "Gather" and n.input[0] in tables}


def _doubles(model: ModelProto) -> set[str]:
    """Names of nodes with stored float64 inputs, for which MatMulNBits has no form."""
    stored = {t.name for t in tensors(model) if t.data_type == t.DOUBLE}
    return {n.name for n in nodes(model) if stored & set(n.input)}


def _whole(value: Scalar) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a whole number is needed, not {value!r}")
    return value


def normalise(params: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """Embeddings are stored in 4 bits only: with 8 the choice makes no difference."""
    return {**params, "op_types": "matmul"} if params.get("bits") == 8 else params


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Another change of precision before this one leaves no float weights."""
    return already_quantized(earlier)


TECHNIQUE = Technique(
    name="weight_only",
    slot=Slot.PRECISION,
    version=1,
    parameters={
        "bits": Choice((8, 4)),
        "block_size": Choice((32, 64, 128)),
        "symmetric": Choice((True, False)),
        # How precisely activations enter the product: 4 = int8, 0 = as they are (float).
        "accuracy_level": Choice((4, 0)),
        "op_types": Choice(("matmul", "matmul_gather")),
    },
    apply=apply,
    summary="MatMul weights in blocks of 8 or 4 bits (MatMulNBits): a smaller file and less memory traffic",
    libraries=("onnx", "onnxruntime", "onnx-ir"),
    claims_int8=True,
    prefer=lambda target: ({"bits": 8, "block_size": 32, "symmetric": True, "accuracy_level": 4},),
    normalise=normalise,
    asks=(Ask("com.microsoft"),),
    refuses=refuses,
)
