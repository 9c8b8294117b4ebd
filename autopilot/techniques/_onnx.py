"""What every technique on ONNX files needs: safe loading and saving, opsets; clean-up and gate re-exported."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.errors import Unsupported
from autopilot.model.files import expected_bytes, external_files, parse
from autopilot.model.graph import nodes, opset, tensors
from autopilot.model.inspect import is_integer_op
from autopilot.techniques._gate import (
    check_same,
    difference,
    feed_for,
    feeds,
    fixed_batch,
    session,
    takes_batches,
    tensor_outputs,
)
from autopilot.techniques._prepare import MINIMUM_IR, prepare_for_quantization
from autopilot.techniques._text import first_line, pass_on_memory

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = [
    "EXTERNAL_ABOVE_BYTES",
    "MATMUL_LIKE",
    "MODEL",
    "check_same",
    "difference",
    "digest_of",
    "drop_unused_domains",
    "ensure_opset",
    "feed_for",
    "feeds",
    "first_line",
    "fixed_batch",
    "load",
    "matmul_like_nodes",
    "nodes",
    "opset",
    "pass_on_memory",
    "prepare_for_quantization",
    "refuse_float",
    "refuse_quantized",
    "save",
    "session",
    "stored_bytes",
    "takes_batches",
    "tensor_outputs",
]

MODEL = "model.onnx"
# Protobuf ends at 2 GiB; tools that add nodes need room below that.
EXTERNAL_ABOVE_BYTES = 1_500_000_000
MATMUL_LIKE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul", "Attention"}
)


def load(path: Path) -> ModelProto:
    """The whole model in memory, external data included.

    Raises:
        ModelError: not a model, or external data that is missing or outside the model's folder.
    """
    from onnx.external_data_helper import load_external_data_for_model

    model = parse(path)
    if external_files(model, path):
        load_external_data_for_model(model, str(path.parent))
    return model


def save(model: ModelProto, target: Path) -> None:
    """Write ``model`` as ``target``; the same model always gives the same bytes.

    Weights go to ``model.onnx.data`` beside it only where one file can't hold them.
    """
    import onnx

    if stored_bytes(model) > EXTERNAL_ABOVE_BYTES:
        location = f"{target.name}.data"
        onnx.save_model(model, str(target), save_as_external_data=True, location=location, size_threshold=1024)
        return
    target.write_bytes(model.SerializeToString(deterministic=True))


def digest_of(model: ModelProto) -> str:
    """sha256 of the model's bytes, the same for the same model."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def stored_bytes(model: ModelProto) -> int:
    """Bytes of all stored tensors; protobuf's own ``ByteSize`` raises beyond 2 GiB."""
    return sum(expected_bytes(t) or 0 for t in tensors(model))


def ensure_opset(model: ModelProto, minimum: int) -> ModelProto:
    """``model`` with a standard opset of at least ``minimum``, converted where it is older.

    Raises:
        Unsupported: ONNX's converter has no path for one of its operators.
    """
    from onnx import checker, version_converter

    now = opset(model)
    if now >= minimum:
        return model
    if now == 0:
        raise Unsupported("the model has no operators of ONNX's own set.")
    if any(e.domain not in ("", "ai.onnx") for e in model.opset_import) and any(n.domain for n in nodes(model)):
        raise Unsupported(f"opset {now} is below {minimum} and operators outside ONNX can't be converted.")
    try:
        converted = version_converter.convert_version(model, minimum)
        converted.ir_version = max(converted.ir_version, MINIMUM_IR)
        checker.check_model(converted)
    except Exception as exc:  # the converter raises RuntimeError, ValueError and its own types
        pass_on_memory(exc)
        raise Unsupported(f"opset {now} can't be converted to {minimum} ({first_line(exc)}).") from exc
    return converted


def refuse_quantized(model: ModelProto) -> None:
    """Raise Unsupported for a model that holds quantized operators already."""
    found = sorted({n.op_type for n in nodes(model) if is_integer_op(n.op_type)})
    if found:
        raise Unsupported(f"the model is quantized already (it has {found[0]} nodes).", "Start from the float model.")


def refuse_float(model: ModelProto) -> None:
    """Raise Unsupported for what should be quantized and holds no quantized operator."""
    if not any(is_integer_op(n.op_type) for n in nodes(model)):
        raise Unsupported("the quantizer found nothing in the model that it could quantize.")


def refuse_half(model: ModelProto) -> None:
    """Raise Unsupported for stored half-precision weights: a copy in float32 answers only as closely as they round."""
    from onnx import TensorProto

    if any(t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for t in model.graph.initializer):
        raise Unsupported("it has weights in half precision.", "Start from the float32 model.")


def drop_unused_domains(model: ModelProto) -> None:
    """Remove operator sets that no node uses: runtimes refuse files that name one they don't know."""
    used = {"" if n.domain == "ai.onnx" else n.domain for n in nodes(model)} | {""}
    kept = [e for e in model.opset_import if ("" if e.domain == "ai.onnx" else e.domain) in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def matmul_like_nodes(model: ModelProto) -> list[NodeProto]:
    """Nodes of the main graph that multiply by a stored weight, in graph order.

    Those are what quantizers can turn into integer kernels; a MatMul of two activations is not
    among them. Constant nodes count as stored only after ``prepare_for_quantization``.
    """
    stored = {t.name for t in model.graph.initializer}
    return [n for n in model.graph.node if n.op_type in MATMUL_LIKE and any(i in stored for i in n.input[1:2])]
