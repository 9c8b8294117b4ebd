"""What can be known of a model without running it: inputs, outputs, operators, size."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.errors import ModelError
from autopilot.model.files import external_files, parse
from autopilot.model.graph import constants, initializers, nodes, opset

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

# Older operator sets lack what quantizers and converters build on.
OLDEST_OPSET = 11
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
# Quantization of activations at run time leaves these; of weights only, MatMulNBits and its like.
DYNAMIC = frozenset(
    {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat", "QAttention"}
)
WEIGHT_ONLY = frozenset({"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QMoE"})
INTEGER = frozenset({"ConvInteger", "MatMulInteger", "ConvIntegerToFloat", "QGemm", "QEmbedLayerNormalization"})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output: ``dtype`` is numpy's name, a dimension a number, a symbol or unknown (None)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as its file describes it.

    ``files``: the main file, then its external data. ``inputs``: those a caller has to give
    (initializers excluded). ``outputs``: the tensors among them. ``op_counts``: nodes by operator,
    subgraphs and functions included; names outside ONNX's own domain carry theirs
    (``com.microsoft.MatMulNBits``). ``quantized``: some operator works on integers already;
    ``dynamic_quantized``: activations are quantized while running. ``parameters``: elements of all
    stored tensors. ``batch``: the fixed number of samples in a request, None when the model takes any.
    """

    path: Path
    files: tuple[Path, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    op_counts: Mapping[str, int]
    quantized: bool
    has_control_flow: bool
    dynamic_quantized: bool
    parameters: int
    batch: int | None


def inspect(path: Path) -> ModelInfo:
    """Everything of ``ModelInfo``; reads the main file once and no external data.

    Raises:
        ModelError: missing, not an ONNX model, cut short, external data that is missing, too short
            or outside the model's folder, an opset below 11, or no tensor among the outputs.
    """
    model = parse(path)
    external = external_files(model, path)
    version = opset(model)
    if 0 < version < OLDEST_OPSET:
        what = f"{path}: the model's operator set is {version}; {OLDEST_OPSET} and up are supported."
        raise ModelError(what, "Export it again with a newer opset, or convert it with onnx.version_converter.")
    if not model.graph.output:
        raise ModelError(f"{path}: the model has no outputs.", "Export it again.")
    # Sequences and maps beside a tensor (scikit-learn's probabilities by name) are left to others to read.
    outputs = [o for o in model.graph.output if o.type.WhichOneof("value") == "tensor_type"] or model.graph.output[:1]
    stored = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    inputs = tuple(_describe(path, i) for i in model.graph.input if i.name not in stored)
    counts = Counter(f"{n.domain}.{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type for n in nodes(model))
    bare = {name.rsplit(".", 1)[-1] for name in counts}
    return ModelInfo(
        path=path,
        files=(path, *external),
        inputs=inputs,
        outputs=tuple(_describe(path, o) for o in outputs),
        opset=version,
        op_counts=dict(sorted(counts.items())),
        quantized=any(is_integer_op(op) for op in bare),
        has_control_flow=bool(CONTROL_FLOW & bare),
        dynamic_quantized=bool(DYNAMIC & bare),
        parameters=_parameters(model),
        batch=_batch(inputs),
    )


def is_integer_op(op_type: str) -> bool:
    """True for operators that only quantized models contain."""
    exact = DYNAMIC | WEIGHT_ONLY | INTEGER | {"QuantizeLinear", "DequantizeLinear", "MatMulInteger"}
    return op_type in exact or op_type.startswith("QLinear")


def copy_model(files: Iterable[Path], target_folder: Path) -> Path:
    """Copy a model's files (the main one first) into ``target_folder``; the main copy's path.

    External data keeps its place relative to the main file, since the model names it so.
    """
    main, *rest = files
    target_folder.mkdir(parents=True, exist_ok=True)
    for file in (main, *rest):
        target = target_folder / file.relative_to(main.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return target_folder / main.name


def _describe(path: Path, info: ValueInfoProto) -> TensorInfo:
    from onnx import TensorProto, helper

    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        what = f"{path}: {info.name!r} is a {str(kind).removesuffix('_type')}, not a tensor."
        raise ModelError(what, "Inputs and outputs other than tensors are not supported; export the model without.")
    tensor = info.type.tensor_type
    if tensor.elem_type == TensorProto.STRING:
        dtype = "str"
    else:
        try:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        except KeyError as exc:
            what = f"{path}: {info.name!r} has an element type, {tensor.elem_type}, that this onnx doesn't know."
            raise ModelError(what, "Install a newer onnx.") from exc
    shape: list[int | str | None] = []
    for d in tensor.shape.dim:
        known = d.WhichOneof("value")
        shape.append(d.dim_value if known == "dim_value" and d.dim_value >= 0 else d.dim_param or None)
    return TensorInfo(info.name, dtype, tuple(shape))


def _batch(inputs: tuple[TensorInfo, ...]) -> int | None:
    """The first input's first dimension when no input's is symbolic: a state's is layers, not samples."""
    first = [i.shape[0] for i in inputs if i.shape]
    fixed = [d for d in first if isinstance(d, int)]
    return fixed[0] if fixed and len(fixed) == len(first) else None


def _parameters(model: ModelProto) -> int:
    """Elements of all stored tensors but strings; shapes and axes are a few among them."""
    total = 0
    for tensor in (*initializers(model), *constants(model)):
        if tensor.data_type != tensor.STRING:
            count = 1
            for d in tensor.dims:
                count *= int(d)
            total += count
    return total
