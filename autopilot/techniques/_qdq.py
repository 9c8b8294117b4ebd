"""Write a model in QDQ form from chosen nodes and known ranges."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autopilot.domain import Scalar
from autopilot.errors import Failure, VariantFailed
from autopilot.techniques import _onnx
from autopilot.techniques._histogram import Range

if TYPE_CHECKING:
    from onnx import ModelProto

# ONNX Runtime's mark for "shapes are inferred already".
_INFERRED = ("onnx.infer", "onnxruntime.quant")


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


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer warns about models that were not through its own pre-processing."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


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
        what = f"the quantized model doesn't load ({_onnx.first_line(exc)})."
        raise VariantFailed(Failure.BUILD_ERROR, what) from exc
