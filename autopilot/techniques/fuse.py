"""Graph fusion: the same computation in fewer, larger operators, checked on real inputs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Scalar
from autopilot.errors import AutopilotError, Failure, Unsupported, VariantFailed
from autopilot.model.graph import nodes
from autopilot.needs import Ask
from autopilot.recipe import Recipe
from autopilot.techniques import _onnx
from autopilot.techniques._rules import already_quantized
from autopilot.techniques._text import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

# A fusion reorders float sums: relative differences of 1e-6 are usual, a wrong one is off by 1e-1.
_RTOL, _ATOL = 1e-3, 1e-5
_OPSET = 17  # the first with LayerNormalization, which the fusions look for


def _ort_fusions(source: Path, target: Path) -> ModelProto:
    """onnxscript's patterns for today's torch exports: attention, normalization, GELU."""
    import onnx_ir
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    model = _onnx.ensure_opset(_onnx.load(source), _OPSET)
    fused, _ = optimize_for_ort(onnx_ir.serde.deserialize_model(model), clear_metadata=True)
    return onnx_ir.serde.serialize_model(fused)


def _ort_offline(level: str) -> Callable[[Path, Path], ModelProto]:
    """ONNX Runtime's own optimizer, its result written to a file."""

    def run(source: Path, target: Path) -> ModelProto:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(target)
        if _onnx.stored_bytes(_onnx.load(source)) > _onnx.EXTERNAL_ABOVE_BYTES:
            name = f"{target.name}.data"
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", name)
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        return _onnx.load(target)

    return run


def _transformers(source: Path, target: Path) -> ModelProto:
    """onnxruntime.transformers' patterns: older BERT exports, skip and bias fusions."""
    from onnxruntime.transformers.optimizer import optimize_by_fusion

    optimized: ModelProto = optimize_by_fusion(_onnx.load(source), "bert", num_heads=0, hidden_size=0).model
    return optimized


def _onnxslim(source: Path, target: Path) -> ModelProto:
    """onnxslim: constant folding, dead code, shared subexpressions."""
    import onnxslim

    slimmed: ModelProto = onnxslim.slim(_onnx.load(source))
    return slimmed


_METHODS: Mapping[str, Callable[[Path, Path], ModelProto]] = {
    "ort_fusions": _ort_fusions,
    "ort_basic": _ort_offline("ORT_ENABLE_BASIC"),
    "ort_extended": _ort_offline("ORT_ENABLE_EXTENDED"),
    "transformers": _transformers,
    "onnxslim": _onnxslim,
}


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the fused model; ``params``: method.

    Raises:
        Unsupported: the model is quantized already, or the method found nothing to change.
        VariantFailed: WRONG_NUMERICS where the rewritten model answers differently.
    """
    method = str(params["method"])
    original = _onnx.load(source)
    _onnx.refuse_quantized(original)
    if _onnx.opset(original) == 0:
        raise Unsupported("the model has no operators of ONNX's own set to fuse.")
    with tempfile.TemporaryDirectory(dir=target_folder) as scratch, quiet():
        try:
            rewritten = _METHODS[method](source, Path(scratch) / _onnx.MODEL)
        except AutopilotError:
            raise
        except Exception as exc:
            # These libraries raise whatever their patterns trip over; the model stays usable without them.
            _onnx.pass_on_memory(exc)
            message = f"{method} failed on this model ({type(exc).__name__}: {_onnx.first_line(exc)})."
            raise VariantFailed(Failure.BUILD_ERROR, message) from exc
    if not _is_simpler(rewritten, original):
        raise Unsupported(f"{method} found nothing to fuse.", "The model as given is already in this form.")
    _restore_inputs(rewritten, original)
    _onnx.drop_unused_domains(rewritten)
    _onnx.save(rewritten, target_folder / _onnx.MODEL)
    _onnx.check_same(source, target_folder / _onnx.MODEL, context, rtol=_RTOL, atol=_ATOL)


def _is_simpler(rewritten: ModelProto, original: ModelProto) -> bool:
    """Fewer nodes, or fused ones; renamed or rearranged nodes alone aren't worth a measurement.

    Constant nodes don't count, since a weight may be either; overridable weights (initializers that
    are inputs too) do, since runtimes don't optimize around those.
    """
    count, before = _operators(rewritten), _operators(original)
    fused = any(domain and (domain, op) not in before for domain, op in count)
    return fused or count.total() < before.total() or len(rewritten.graph.input) < len(original.graph.input)


def _restore_inputs(rewritten: ModelProto, original: ModelProto) -> None:
    """Declare again, in order, the inputs that callers give: some tools drop those that nothing reads."""
    stored = {t.name for t in original.graph.initializer}
    there = {i.name: i for i in rewritten.graph.input}
    inputs = [there.get(i.name, i) for i in original.graph.input if i.name not in stored]
    overridable = [i for i in rewritten.graph.input if i.name in stored]
    del rewritten.graph.input[:]
    rewritten.graph.input.extend([*inputs, *overridable])


def _operators(model: ModelProto) -> Counter[tuple[str, str]]:
    return Counter((n.domain, n.op_type) for n in nodes(model) if n.op_type != "Constant")


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Fusing after quantization destroys the patterns that integer kernels need."""
    late = already_quantized(earlier)
    return f"{late}; fusing would undo it" if late else None


TECHNIQUE = Technique(
    name="fuse",
    slot=Slot.GRAPH,
    version=1,
    parameters={"method": Choice(tuple(_METHODS))},
    apply=apply,
    summary="fewer, larger operators: attention, normalization, GELU, convolution + activation",
    libraries=("onnx", "onnxruntime", "onnxscript", "onnx-ir", "onnxslim"),
    needs_calibration=True,
    prefer=lambda target: ({"method": "ort_fusions"},),
    asks=(Ask("com.microsoft", "method", ("ort_fusions", "ort_extended", "transformers")),),
    refuses=refuses,
)
