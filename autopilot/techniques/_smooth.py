"""SmoothQuant: move the outliers of activations into the weights that they are multiplied with.

Xiao et al. 2022 (arXiv 2211.10438). For a product X W, channel j of X is divided by
``s_j = max|X_j|**alpha / max|W_j|**(1 - alpha)`` and row j of W multiplied by it: the same product, with
channels of X that lie closer together, so that one scale for all of them loses less. The division goes
into the LayerNormalization, or the Mul and Add by stored vectors, that make X, where nothing else reads X;
elsewhere it is a Mul of its own before the product. ONNX Runtime's own option imports a module that
neural-compressor no longer has.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autopilot.cache.sealed import read_sealed, write_sealed
from autopilot.contracts import BuildContext
from autopilot.errors import Unsupported
from autopilot.recipe import digest
from autopilot.techniques import _onnx
from autopilot.techniques._calibration import batches, exposing, plain_session
from autopilot.techniques._histogram import HUGE
from autopilot.techniques._rescale import Rescaling
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from autopilot.data import Split

Floats = npt.NDArray[np.float32]
# For the largest absolute value of each channel: as many samples as static int8 takes for its ranges.
_SAMPLES = 128
# A factor beyond this would trade one outlier for another; s is kept within its inverse and it.
_MOST = 1e4
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Smoothed:
    """A model that computes the same; ``added``: names of the Muls that could not be folded."""

    model: ModelProto
    added: tuple[str, ...]


def smooth(model: ModelProto, weighted: Sequence[str], alpha: float, source: Path, context: BuildContext) -> Smoothed:
    """``model`` with every product of ``weighted`` smoothed at strength ``alpha``, 0 to 1; it answers as ``source``.

    Raises:
        Unsupported: no product with a stored matrix, none whose input has outliers to move, or no calibration data.
        VariantFailed: WRONG_NUMERICS, where the smoothed model answers differently on real inputs.
    """
    readers = products(model, weighted)
    if not readers:
        raise Unsupported("there is no MatMul or Gemm with a stored matrix to smooth.", "Leave smooth at 0.")
    peaks = _peaks(model, sorted(readers), context)
    rescaling, moved = Rescaling(model), False
    for tensor, nodes in readers.items():
        peak = peaks.get(tensor)
        if peak is None or any(rescaling.rows(n) != peak.size for n in nodes):
            continue
        factor = strengths(peak, np.max([rescaling.row_peaks(n) for n in nodes], axis=0), alpha)
        rescaling.divide(tensor, nodes, factor)
        moved = moved or bool(np.any(factor != 1.0))
    if not moved:
        raise Unsupported("no product has an input whose channels could be smoothed.", "Leave smooth at 0.")
    out = rescaling.done()
    with temporary_folder("smooth") as folder:
        built = folder / _onnx.MODEL
        _onnx.save(out, built)
        _onnx.check_same(source, built, context)
    return Smoothed(out, tuple(rescaling.added))


def products(model: ModelProto, weighted: Sequence[str]) -> dict[str, list[NodeProto]]:
    """The MatMuls and Gemms among ``weighted`` that have a stored matrix, by the tensor that they multiply."""
    matrices = {t.name for t in model.graph.initializer if len(t.dims) == 2}
    inside = set(weighted)
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.name in inside and node.op_type in ("MatMul", "Gemm") and node.input[1] in matrices:
            found.setdefault(node.input[0], []).append(node)
    return found


def strengths(activations: Floats, weights: Floats, alpha: float) -> Floats:
    """The factor of each channel, from the largest absolute values of activations and weights.

    All arrays: float32, shape (channels,). A channel that is zero on either side keeps 1.

    >>> strengths(np.float32([64, 1, 0]), np.float32([1, 1, 1]), 0.5)
    array([8., 1., 1.], dtype=float32)
    """
    both = (activations > 0) & (weights > 0)
    x, w = np.where(both, activations, 1.0), np.where(both, weights, 1.0)
    factor = x.astype(np.float64) ** alpha / w.astype(np.float64) ** (1.0 - alpha)
    return np.where(both, np.clip(factor, 1 / _MOST, _MOST), 1.0).astype(np.float32)


def _peaks(model: ModelProto, tensors: Sequence[str], context: BuildContext) -> dict[str, Floats]:
    """Largest absolute value by channel (the last axis) of each tensor; from ``context.scratch`` when known."""
    split = context.calibration
    if split is None:
        raise Unsupported("smoothing needs calibration data.", "Give data.train or more validation samples.")
    count = min(_SAMPLES, split.n)
    key = digest([_FORMAT, _onnx.digest_of(model), split.digest, count, list(tensors)])
    path = context.scratch / "channel-peaks" / f"{key[:32]}.npz"
    payload = read_sealed(path)
    if payload is None:
        payload = _packed(_measured(model, tensors, count, split, context.threads))
        write_sealed(path, payload, f"channel peaks of {len(tensors)} tensors on {count} samples")
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        names = stored["names"].tolist()
        return {name: np.asarray(stored[f"peak_{i}"], np.float32) for i, name in enumerate(names)}


def _packed(peaks: Mapping[str, Floats]) -> bytes:
    buffer = io.BytesIO()
    names = np.array(list(peaks), dtype=np.str_)
    np.savez(buffer, names=names, **{f"peak_{i}": p for i, p in enumerate(peaks.values())})  # type: ignore[arg-type]
    return buffer.getvalue()


def _measured(model: ModelProto, tensors: Sequence[str], count: int, split: Split, threads: int) -> dict[str, Floats]:
    """Tensors with values that are not finite, or beyond what is ever quantized, are left out."""
    with temporary_folder("smooth") as folder:
        path = folder / _onnx.MODEL
        _onnx.save(exposing(model, tensors), path)
        runner = plain_session(path, threads)
    wanted = set(tensors)
    outputs = [o.name for o in runner.get_outputs() if o.type == "tensor(float)" and o.name in wanted]
    inputs = [i.name for i in runner.get_inputs() if i.type == "tensor(float)" and i.name in wanted]
    found: dict[str, Floats] = {}
    for feed in batches(runner, split, count, outputs):
        answers = runner.run(outputs, feed) if outputs else ()
        for name, values in (*((i, feed[i]) for i in inputs), *zip(outputs, answers, strict=True)):
            peak = _channel_peak(values)
            found[name] = np.maximum(found[name], peak) if name in found else peak
    return {name: peak for name, peak in found.items() if bool(np.all(peak < HUGE))}


def _channel_peak(values: npt.NDArray[np.float32]) -> Floats:
    """Shape (channels,) of values of any shape, channels last."""
    flat = np.abs(np.asarray(values, np.float32).reshape(-1, values.shape[-1]))
    peak: Floats = flat.max(axis=0, initial=0.0)
    return peak
