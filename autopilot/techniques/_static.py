"""Static int8 in QDQ form: choose the nodes, measure ranges, write the model. Shared by static_int8 and mixed_int8."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import BuildContext
from autopilot.domain import Scalar
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.model.graph import STANDARD
from autopilot.techniques import _onnx
from autopilot.techniques._calibration import Calibration, Range, calibrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto, NodeProto

    from autopilot.target import Target

# Per-channel QuantizeLinear exists from opset 13 on; below, ONNX Runtime refuses the model.
_OPSET = 13
_WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
# What may stay in int8 between two of those, where ONNX Runtime has an int8 kernel or none is needed.
_BETWEEN = frozenset(
    {
        *("Relu", "Clip", "LeakyRelu", "Sigmoid", "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool"),
        *("Concat", "Split", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Resize", "Pad", "Slice"),
    }
)
# ONNX Runtime's mark for "shapes are inferred already".
_INFERRED = ("onnx.infer", "onnxruntime.quant")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready for quantizers. ``digest``: sha256 of its bytes; ``weighted``: nodes with a stored float weight."""

    model: ModelProto
    digest: str
    weighted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """How values are stored: types ``uint8``/``int8`` and their options."""

    activations: str
    weights: str
    per_channel: bool
    symmetric: bool
    reduce_range: bool

    @classmethod
    def of(cls, params: Mapping[str, Scalar]) -> Numbers:
        """From a technique's parameters; those it doesn't have are off."""
        flags = (bool(params.get(k, False)) for k in ("per_channel", "symmetric", "reduce_range"))
        return cls(str(params["activations"]), str(params["weights"]), *flags)


def prepare(source: Path, context: BuildContext) -> Prepared:
    """Load, convert to opset 13 or later, fold constants and batch norms, name the nodes.

    Raises:
        Unsupported: already quantized, or nothing with a stored float weight to quantize.
    """
    model = _onnx.load(source)
    _onnx.refuse_quantized(model)
    model = _folded(_onnx.prepare_for_quantization(_onnx.ensure_opset(model, _OPSET)), context.threads)
    weights = _float_weights(model)
    weighted = tuple(n.name for n in model.graph.node if _is_weighted(n, weights))
    if not weighted:
        raise Unsupported("there is no Conv, Gemm or MatMul with a stored float32 weight to quantize.")
    return Prepared(model, hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(), weighted)


def _folded(model: ModelProto, threads: int) -> ModelProto:
    """``model`` after ONNX Runtime's basic (standard ONNX) optimizations: constants and batch norms folded.

    Weights stored as float16 behind a Cast become plain float32 ones here.
    """
    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="prepare-") as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        _onnx.save(model, before)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(after)
        if before.with_name(before.name + ".data").exists():
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "after.data")
        try:
            ort.InferenceSession(str(before), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # ONNX Runtime's exceptions share no base class
            raise Unsupported(f"ONNX Runtime can't load the converted model ({_onnx.first_line(exc)}).") from exc
        folded = onnx.load(str(after))
    _onnx.drop_unused_domains(folded)
    return _onnx.prepare_for_quantization(folded)


def _float_weights(model: ModelProto) -> frozenset[str]:
    from onnx import TensorProto

    return frozenset(t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)


def _is_weighted(node: NodeProto, weights: Collection[str]) -> bool:
    return node.domain in STANDARD and node.op_type in _WEIGHTED and node.input[1] in weights and node.input[0] not in weights


def choose(prepared: Prepared, scope: str, *, embeddings: bool = False) -> tuple[str, ...]:
    """Names of the nodes to quantize, what lies between them not included.

    ``weighted``: those with a stored weight; ``attention``: MatMuls of two computed tensors too;
    ``all``: whatever ONNX Runtime's quantizer knows, which is what ``quantize_static`` does when
    told nothing (on transformers it quantizes masks: text_sections 0.82 -> 0.32).
    """
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    nodes = [n for n in prepared.model.graph.node if n.domain in STANDARD]
    if scope == "all":
        known = set(QDQRegistry) | set(QLinearOpsRegistry)
        return tuple(n.name for n in nodes if n.op_type in known or n.name in prepared.weighted)
    weights = _float_weights(prepared.model)
    chosen = set(prepared.weighted)
    if scope == "attention":
        stored = {t.name for t in prepared.model.graph.initializer}
        chosen |= {n.name for n in nodes if n.op_type == "MatMul" and not stored.intersection(n.input)}
    if embeddings:
        chosen |= {n.name for n in nodes if n.op_type == "Gather" and n.input[0] in weights}
    return tuple(n.name for n in nodes if n.name in chosen)


def between(model: ModelProto, chosen: Collection[str]) -> tuple[str, ...]:
    """Names of nodes that lie between ``chosen`` ones, so that int8 can flow through them.

    Such a node has a kind in _BETWEEN, every float input of it comes from a chosen node, another
    one of them or a stored tensor, and something quantized reads it. A residual Add of a CNN
    qualifies; the mask Add and the residual Add before a LayerNormalization of a transformer don't.
    """
    stored = {t.name for t in model.graph.initializer}
    producer = {o: n for n in model.graph.node for o in n.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    inside = {n.name for n in model.graph.node if n.op_type in _BETWEEN and n.domain in STANDARD} - set(chosen)
    kept = inside | set(chosen)

    def fits(node: NodeProto) -> bool:
        data = [i for i in node.input if i and i not in stored]
        fed = bool(data) and all(i in producer and producer[i].name in kept for i in data)
        return fed and any(r.name in kept for o in node.output for r in readers.get(o, ()))

    while lost := [n.name for n in model.graph.node if n.name in inside and not fits(n)]:
        inside.difference_update(lost)
        kept.difference_update(lost)
    return tuple(n.name for n in model.graph.node if n.name in inside)


def tensors_of(model: ModelProto, chosen: Collection[str]) -> tuple[str, ...]:
    """Computed tensors (and graph inputs) that the ``chosen`` nodes read or write."""
    stored = {t.name for t in model.graph.initializer}
    names = (t for n in model.graph.node if n.name in chosen for t in (*n.input, *n.output))
    return tuple(dict.fromkeys(t for t in names if t and t not in stored))


def quantize(model: ModelProto, chosen: Collection[str], numbers: Numbers, ranges: Mapping[str, Range]) -> ModelProto:
    """A copy of ``model`` with QuantizeLinear/DequantizeLinear around the ``chosen`` nodes.

    Every tensor that they read or write needs a range. A MatMul or Gemm whose output no chosen node
    reads gives floats: its kernel can, and accuracy gains (text_sections: as fast, no range to guess).

    Raises:
        VariantFailed: BUILD_ERROR, with the quantizer's own words.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

    kinds = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _declare(copy, ranges)
    data = {k: (np.array(lo, np.float32), np.array(hi, np.float32)) for k, (lo, hi) in sorted(ranges.items())}
    options = {"ActivationSymmetric": numbers.symmetric, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]}
    try:
        with _quiet():
            quantizer = QDQQuantizer(
                copy,
                numbers.per_channel,
                numbers.reduce_range,
                kinds[numbers.weights],
                kinds[numbers.activations],
                TensorsData(CalibrationMethod.MinMax, data),
                sorted(chosen),
                [],
                sorted({n.op_type for n in model.graph.node if n.name in chosen}),
                options,
            )
            quantizer.quantize_model()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError) as exc:
        raise VariantFailed(Failure.BUILD_ERROR, f"the quantizer failed ({_onnx.first_line(exc)}).") from exc
    out: ModelProto = quantizer.model.model
    _spare_float_readers(out, chosen)
    del out.graph.value_info[:]
    kept = [p for p in out.metadata_props if (p.key, p.value) != _INFERRED]
    del out.metadata_props[:]
    out.metadata_props.extend(kept)
    _onnx.drop_unused_domains(out)
    return out


def _declare(model: ModelProto, ranges: Mapping[str, Range]) -> None:
    """Give the quantizer the types of the tensors with a range, and tell it not to infer shapes.

    ONNX's inference ends at the first operator of another domain; the ranges know better.
    """
    from onnx import TensorProto, helper

    del model.graph.value_info[:]
    there = {v.name for v in (*model.graph.input, *model.graph.output)}
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(ranges) if name not in there
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = _INFERRED


def _spare_float_readers(model: ModelProto, chosen: Collection[str]) -> None:
    """Let float nodes (and graph outputs) read a float tensor itself, not its quantized copy.

    The quantizer puts its pair in front of every reader. Where a float node made the tensor, the
    others lose accuracy for nothing. Behind an int8 node they must read the copy: its kernel gives
    no other.
    """
    producers = {o: n for n in model.graph.node for o in n.output if o}
    outputs = {o.name for o in model.graph.output}
    for q in [n for n in model.graph.node if n.op_type == "QuantizeLinear"]:
        dq = next((n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == q.output[0]), None)
        source, maker = q.input[0], producers.get(q.input[0])
        if dq is None or (maker is not None and maker.name in chosen):
            continue
        copied = dq.output[0]
        if copied in outputs and maker is not None:
            # The quantizer renamed the float tensor and gave its name to the copy: the other way round.
            maker.output[:] = [copied if o == source else o for o in maker.output]
            q.input[0], dq.output[0] = copied, f"{copied}_dequantized"
            source, copied = copied, dq.output[0]
            _reread(model, source, copied, {n.name for n in model.graph.node if n.name in chosen})
            continue
        _reread(model, copied, source, {n.name for n in model.graph.node if n.name not in chosen})


def _reread(model: ModelProto, old: str, new: str, names: Collection[str]) -> None:
    for node in model.graph.node:
        if node.name in names:
            node.input[:] = [new if i == old else i for i in node.input]


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer warns about models that were not through its own pre-processing."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def measured(
    prepared: Prepared, chosen: Collection[str], samples: int, context: BuildContext
) -> tuple[frozenset[str], Calibration]:
    """``chosen`` with what lies between, less the nodes that touch a tensor no int8 can hold; and the calibration.

    Raises:
        Unsupported: nothing is left to quantize.
    """
    wanted = frozenset(chosen) | frozenset(between(prepared.model, chosen))
    tensors = tensors_of(prepared.model, wanted)
    calibration = calibrate(prepared.model, prepared.digest, tensors, samples, context)
    lost = {name for name, h in calibration.histograms.items() if not h.usable}
    hopeless = {n.name for n in prepared.model.graph.node if lost.intersection((*n.input, *n.output))}
    left = frozenset(chosen) - hopeless
    if not left & frozenset(prepared.weighted):
        raise Unsupported("every node with a stored weight works on values that are not finite or beyond 1e30.")
    return (left | frozenset(between(prepared.model, left))) - hopeless, calibration


def only(prepared: Prepared, chosen: Collection[str], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges that ``chosen`` needs."""
    return {name: ranges[name] for name in tensors_of(prepared.model, chosen) if name in ranges}


def write(model: ModelProto, target_folder: Path, threads: int) -> None:
    """Save a quantized model and load it once.

    Raises:
        VariantFailed: BUILD_ERROR, where ONNX Runtime refuses it.
    """
    target = target_folder / _onnx.MODEL
    _onnx.save(model, target)
    try:
        _onnx.session(target, threads)
    except Exception as exc:  # ONNX Runtime's exceptions share no base class
        raise VariantFailed(Failure.BUILD_ERROR, f"the quantized model doesn't load ({_onnx.first_line(exc)}).") from exc
