"""Write a model in QDQ form from chosen nodes and known ranges."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import BuildContext
from autopilot.domain import Scalar
from autopilot.errors import Failure, VariantFailed
from autopilot.model.graph import subgraphs
from autopilot.techniques import _onnx
from autopilot.techniques._calibration import batches
from autopilot.techniques._histogram import Range
from autopilot.techniques._text import quiet

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# ONNX Runtime's mark for "shapes are inferred already".
_INFERRED = ("onnx.infer", "onnxruntime.quant")

_FUSED_WITH_GEMM = frozenset(
    {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Selu", "Softplus", "Softsign", "ThresholdedRelu"}
)


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


def quantize(model: ModelProto, chosen: Collection[str], numbers: Numbers, ranges: Mapping[str, Range]) -> ModelProto:
    """A copy of ``model`` with QuantizeLinear/DequantizeLinear around the ``chosen`` nodes.

    Every tensor that they read or write needs a range.

    Raises:
        VariantFailed: BUILD_ERROR, with the quantizer's own words.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType, TensorsData

    kinds = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _declare(copy, ranges)
    data = {k: (np.array(lo, np.float32), np.array(hi, np.float32)) for k, (lo, hi) in sorted(ranges.items())}
    options = {
        "ActivationSymmetric": numbers.symmetric,
        "TensorQuantOverrides": {w: [{"quant_type": kinds[numbers.weights]}] for w in _stacked_weights(model, chosen)},
    }
    try:
        with quiet():
            quantizer = _quantizer(_float_results(model, chosen))(
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
        _onnx.pass_on_memory(exc)
        raise VariantFailed(Failure.BUILD_ERROR, f"the quantizer failed ({_onnx.first_line(exc)}).") from exc
    out: ModelProto = quantizer.model.model
    _spare_float_readers(out, chosen)
    _sort(out.graph)
    del out.graph.value_info[:]
    kept = [p for p in out.metadata_props if (p.key, p.value) != _INFERRED]
    del out.metadata_props[:]
    out.metadata_props.extend(kept)
    _onnx.drop_unused_domains(out)
    return out


def _quantizer(float_results: Collection[str]) -> Any:
    """ONNX Runtime's QDQ quantizer, leaving some tensors alone where it knows exceptions by operator type only."""
    from onnxruntime.quantization import QDQQuantizer

    class Sparing(QDQQuantizer):  # type: ignore[misc]
        def quantize_activation_tensor(self, tensor_name: str) -> None:
            if tensor_name not in float_results:
                super().quantize_activation_tensor(tensor_name)

    return Sparing


def _float_results(model: ModelProto, chosen: Collection[str]) -> frozenset[str]:
    """Outputs of chosen MatMul and Gemm nodes that no chosen node reads.

    Their kernels can give floats, which is as fast and more accurate (text_sections). Not before
    an activation, which ONNX Runtime would fuse with a Gemm into a float kernel.
    """
    in_int8 = {i for n in model.graph.node if n.name in chosen for i in n.input}
    fusing = {i for n in model.graph.node if n.op_type in _FUSED_WITH_GEMM for i in n.input}
    results = {n.output[0]: n.op_type for n in model.graph.node if n.name in chosen and n.op_type in ("MatMul", "Gemm")}
    return frozenset(t for t, kind in results.items() if t not in in_int8 and (kind == "MatMul" or t not in fusing))


def _stacked_weights(model: ModelProto, chosen: Collection[str]) -> tuple[str, ...]:
    """Weights of MatMuls that aren't matrices: one scale each, whatever the others get.

    ONNX Runtime's kernel takes scales by column of a matrix only and fails when it runs.
    """
    ranks = {t.name: len(t.dims) for t in model.graph.initializer}
    factors = (i for n in model.graph.node if n.op_type == "MatMul" and n.name in chosen for i in n.input)
    return tuple(sorted({i for i in factors if ranks.get(i, 2) != 2}))


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
    restores = {n.input[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    outputs = {o.name for o in model.graph.output}
    for_float: dict[str, str] = {}
    for_int8: dict[str, str] = {}
    for q in [n for n in model.graph.node if n.op_type == "QuantizeLinear"]:
        dq, maker = restores.get(q.output[0]), producers.get(q.input[0])
        if dq is None or (maker is not None and maker.name in chosen):
            continue
        if maker is not None and dq.output[0] in outputs:
            # The quantizer renamed the float tensor and gave its name to the copy: the other way round.
            name, copied = dq.output[0], f"{dq.output[0]}_dequantized"
            maker.output[:] = [name if o == q.input[0] else o for o in maker.output]
            q.input[0], dq.output[0] = name, copied
            for_int8[name] = copied
        else:
            for_float[dq.output[0]] = q.input[0]
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            names = for_int8 if node.name in chosen else for_float
            node.input[:] = [names.get(i, i) for i in node.input]


def _sort(graph: GraphProto) -> None:
    """Put each node behind what it reads, stably; the quantizer appends its nodes at the end.

    Its own sort overlooks what subgraphs read.
    """
    waiting = {o for n in graph.node for o in n.output if o}
    readers: dict[str, list[int]] = {}
    missing: list[int] = []
    for i, node in enumerate(graph.node):
        reads = {name for name in (*node.input, *_captured(node)) if name in waiting}
        missing.append(len(reads))
        for name in reads:
            readers.setdefault(name, []).append(i)
    ready = [i for i, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        i = heappop(ready)
        order.append(i)
        for name in graph.node[i].output:
            for reader in readers.get(name, ()):
                missing[reader] -= 1
                if missing[reader] == 0:
                    heappush(ready, reader)
    if len(order) < len(graph.node):
        return  # a subgraph hides an outer name; runtimes sort for themselves
    nodes = [graph.node[i] for i in order]
    graph.ClearField("node")
    graph.node.extend(nodes)


def _captured(node: NodeProto) -> Iterator[str]:
    """Every name that the subgraphs of ``node`` read or return, from inside or outside."""
    for inner in subgraphs(node):
        for child in inner.node:
            yield from child.input
            yield from _captured(child)
        yield from (o.name for o in inner.output)


def write(model: ModelProto, target_folder: Path, context: BuildContext) -> None:
    """Save a quantized model, load it and let it answer one request.

    Raises:
        Unsupported: the quantizer left all of it in float.
        VariantFailed: BUILD_ERROR, where ONNX Runtime refuses it.
    """
    _onnx.refuse_float(model)
    target = target_folder / _onnx.MODEL
    _onnx.save(model, target)
    assert context.calibration is not None
    try:
        runner = _onnx.session(target, context.threads)
    except Exception as exc:  # ONNX Runtime's exceptions share no base class
        _onnx.pass_on_memory(exc)
        what = f"the quantized model doesn't load ({_onnx.first_line(exc)})."
        raise VariantFailed(Failure.BUILD_ERROR, what) from exc
    feed = next(batches(runner, context.calibration, 1))
    try:
        runner.run(None, feed)
    except Exception as exc:  # see above
        _onnx.pass_on_memory(exc)
        what = f"the quantized model doesn't run ({_onnx.first_line(exc)})."
        raise VariantFailed(Failure.BUILD_ERROR, what) from exc
