"""What static_int8 and mixed_int8 share: prepare the model, choose nodes, measure their ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import BuildContext
from autopilot.domain import Choice, Scalar
from autopilot.errors import Unsupported
from autopilot.model.graph import STANDARD
from autopilot.techniques import _onnx, _smooth
from autopilot.techniques._calibration import Calibration, calibrate
from autopilot.techniques._histogram import Range
from autopilot.techniques._rules import integer_forms
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
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

# Strength of SmoothQuant, 0 for off. Below 0.5 it moves outliers of weights into activations, of which all share one
# scale: a text encoder's answers were off by 32% at 0.3, 9% at 0.5, 3% at 0.8, and 6% without (benchmarks/smooth.py).
SMOOTH = Choice((0.0, 0.8, 0.7, 0.6, 0.5))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready for quantizers.

    ``digest``: sha256 of its bytes; ``weighted``: names of the nodes with a stored float weight, in
    graph order; ``barred``: nodes that must stay in float, some known after calibration.
    """

    model: ModelProto
    digest: str
    weighted: tuple[str, ...]
    barred: frozenset[str] = frozenset()


def prepare(source: Path, context: BuildContext, *, smooth: float = 0.0) -> Prepared:
    """Load, convert to opset 13 or later, fold constants and batch norms, name the nodes.

    ``smooth``: strength at which outliers of activations move into weights, 0 for not at all.

    Raises:
        Unsupported: already quantized, nothing with a stored float weight to quantize, or nothing to smooth.
        VariantFailed: WRONG_NUMERICS, where smoothing changes answers.
    """
    model = _onnx.load(source)
    _onnx.refuse_quantized(model)
    model = _folded(_onnx.prepare_for_quantization(_onnx.ensure_opset(model, _OPSET)), context.threads)
    weights = _float_weights(model)
    weighted = tuple(n.name for n in model.graph.node if _is_weighted(n, weights))
    if not weighted:
        raise Unsupported("there is no Conv, Gemm or MatMul with a stored float32 weight to quantize.")
    added: frozenset[str] = frozenset()
    if smooth:
        # The Muls stay in float: rounded before them, outliers would have done their harm.
        smoothed = _smooth.smooth(model, weighted, smooth, source, context)
        model, added = smoothed.model, frozenset(smoothed.added)
    return Prepared(model, _onnx.digest_of(model), weighted, added)


def _folded(model: ModelProto, threads: int) -> ModelProto:
    """``model`` after ONNX Runtime's basic (standard ONNX) optimizations: constants and batch norms folded.

    Weights stored as float16 behind a Cast become plain float32 ones here.
    """
    import onnx
    import onnxruntime as ort

    with temporary_folder("prepare") as folder:
        before, after = folder / "before.onnx", folder / "after.onnx"
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
            _onnx.pass_on_memory(exc)
            raise Unsupported(f"ONNX Runtime can't load the converted model ({_onnx.first_line(exc)}).") from exc
        folded = onnx.load(str(after))
    _onnx.drop_unused_domains(folded)
    return _onnx.prepare_for_quantization(folded)


def _float_weights(model: ModelProto) -> frozenset[str]:
    from onnx import TensorProto

    return frozenset(t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)


def _is_weighted(node: NodeProto, weights: Collection[str]) -> bool:
    if node.domain not in STANDARD or node.op_type not in _WEIGHTED or not _is_plain(node):
        return False
    return node.input[1] in weights and node.input[0] not in weights


def _is_plain(node: NodeProto) -> bool:
    """False for a Gemm with factors or a transposed input: the quantizer loses beta, the kernel knows no alpha."""
    if node.op_type != "Gemm":
        return True
    settings = {a.name: a for a in node.attribute}
    scaled = any(k in settings and settings[k].f != 1.0 for k in ("alpha", "beta"))
    return not scaled and not ("transA" in settings and settings["transA"].i)


def choose(prepared: Prepared, scope: str, *, embeddings: bool = False) -> tuple[str, ...]:
    """Names of the nodes to quantize, without what lies between them.

    ``weighted``: those with a stored weight; ``attention``: MatMuls of two computed tensors too;
    ``all``: whatever ONNX Runtime's quantizer knows, which is what ``quantize_static`` does when
    told nothing (on transformers it quantizes masks: text_sections 0.82 -> 0.32).
    """
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    nodes = [n for n in prepared.model.graph.node if n.domain in STANDARD]
    if scope == "all":
        known = set(QDQRegistry) | set(QLinearOpsRegistry)
        return tuple(n.name for n in nodes if n.op_type in known and _is_plain(n))
    weights = _float_weights(prepared.model)
    chosen = set(prepared.weighted)
    if scope == "attention":
        stored = {t.name for t in prepared.model.graph.initializer}
        chosen |= {n.name for n in nodes if n.op_type == "MatMul" and not stored.intersection(n.input)}
    if embeddings:
        chosen |= {n.name for n in nodes if n.op_type == "Gather" and n.input[0] in weights}
    return tuple(n.name for n in nodes if n.name in chosen)


def extended(prepared: Prepared, chosen: Collection[str]) -> frozenset[str]:
    """``chosen`` and the nodes that lie between them, so that int8 can flow through; none that is barred.

    Such a node has a kind in _BETWEEN, every float input of it comes from a chosen node, another
    one of them or a stored tensor, and something quantized reads it. A residual Add of a CNN
    qualifies; the mask Add and the residual Add before a LayerNormalization of a transformer don't.
    """
    model, chosen = prepared.model, frozenset(chosen) - prepared.barred
    stored = {t.name for t in model.graph.initializer}
    producer = {o: n for n in model.graph.node for o in n.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    inside = {n.name for n in model.graph.node if n.op_type in _BETWEEN and n.domain in STANDARD}
    inside -= chosen | prepared.barred
    kept = inside | chosen

    def fits(node: NodeProto) -> bool:
        data = [i for i in node.input if i and i not in stored]
        fed = bool(data) and all(i in producer and producer[i].name in kept for i in data)
        return fed and any(r.name in kept for o in node.output for r in readers.get(o, ()))

    while lost := [n.name for n in model.graph.node if n.name in inside and not fits(n)]:
        inside.difference_update(lost)
        kept.difference_update(lost)
    return frozenset(kept)


def tensors_of(model: ModelProto, chosen: Collection[str]) -> tuple[str, ...]:
    """Computed tensors (and graph inputs) that the ``chosen`` nodes read or write."""
    stored = {t.name for t in model.graph.initializer}
    names = (t for n in model.graph.node if n.name in chosen for t in (*n.input, *n.output))
    return tuple(dict.fromkeys(t for t in names if t and t not in stored))


def measured(
    prepared: Prepared, chosen: Collection[str], samples: int, context: BuildContext
) -> tuple[Prepared, Calibration]:
    """The calibration of ``chosen`` and what lies between; nodes on values that no int8 can hold are barred.

    Raises:
        Unsupported: nothing is left to quantize, or there are too few samples.
    """
    tensors = tensors_of(prepared.model, extended(prepared, chosen))
    calibration = calibrate(prepared.model, prepared.digest, tensors, samples, context)
    lost = {name for name, h in calibration.histograms.items() if not h.usable}
    barred = frozenset(n.name for n in prepared.model.graph.node if lost.intersection((*n.input, *n.output)))
    weighted = tuple(n for n in prepared.weighted if n not in barred)
    if not weighted:
        raise Unsupported("every node with a stored weight works on values that are not finite or beyond 1e30.")
    return replace(prepared, weighted=weighted, barred=prepared.barred | barred), calibration


def only(prepared: Prepared, chosen: Collection[str], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges that ``chosen`` needs."""
    return {name: ranges[name] for name in tensors_of(prepared.model, chosen) if name in ranges}


def preferred_numbers(target: Target) -> dict[str, Scalar]:
    """How ``target``'s provider multiplies integers best."""
    return integer_forms(target)[0]


def normalise_numbers(params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """``params`` without pairs of types that mean the same or that no kernel has.

    Signed activations go with signed weights only; unsigned ones are never symmetric: that would
    lose a bit and keep every Relu from being folded.
    """
    out = dict(params)
    if out.get("activations") == "int8" and "weights" in out:
        out["weights"] = "int8"
    if out.get("activations") == "uint8" and "symmetric" in out:
        out["symmetric"] = False
    if "smooth" in out:
        out["smooth"] = float(out["smooth"] or 0.0)  # a space file may say 0
    return out
