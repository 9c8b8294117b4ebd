"""What metrics share: how outputs and labels line up, and the one wording for labels that don't fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import DataError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def misfit(metric: str, outputs: Array, labels: Array, problem: str, right: str) -> DataError:
    """The error for labels that don't fit: names metric, label type, shape and range, and what would fit."""
    span = ""
    if labels.dtype.kind in "biuf" and labels.size:
        span = f", values {labels.min():g} to {labels.max():g}"
    kind = "text" if labels.dtype.kind in "US" else labels.dtype.name
    return DataError(
        f"the metric {metric} does not fit: {problem}. The labels are {kind}{list(labels.shape)}{span};"
        f" the scored output is {outputs.dtype.name}{list(outputs.shape)}.",
        f"It needs {right}.",
    )


def require_numbers(metric: str, outputs: Array, labels: Array, right: str) -> None:
    """Refuse text, empty arrays and unequal sample counts."""
    if labels.dtype.kind not in "biuf":
        raise misfit(metric, outputs, labels, "the labels are not numbers", right)
    if outputs.ndim == 0 or labels.ndim == 0 or len(outputs) != len(labels):
        raise misfit(metric, outputs, labels, "output and labels differ in the number of samples", right)
    if outputs.dtype.kind not in "biuf":
        raise misfit(metric, outputs, labels, "the scored output is not numeric (set metric.output)", right)
    if labels.size == 0:
        raise misfit(metric, outputs, labels, "there are no labels", right)


def squeeze_labels(outputs: Array, labels: Array) -> Array:
    """``labels`` of shape (n, ..., 1) as (n, ...) where the output holds classes or one value in that place."""
    if labels.ndim > 1 and labels.shape[-1] == 1 and labels.ndim == outputs.ndim:
        return labels[..., 0]
    return labels


def predicted(outputs: Array, labels: Array, threshold: float = 0.5) -> Array:
    """Predicted classes, in the shape of ``labels``.

    ``outputs`` (n, ..., classes): argmax over the last axis. Integers of the labels' shape are
    classes already. Floats of the labels' shape, or with a last axis of 1, are probabilities of
    class 1, compared with ``threshold``.
    """
    if outputs.ndim == labels.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs[..., 0]
    if outputs.ndim == labels.ndim:
        return outputs.astype(np.int64) if outputs.dtype.kind in "biu" else (outputs > threshold).astype(np.int64)
    return np.asarray(outputs.argmax(axis=-1))


def check_classes(metric: str, outputs: Array, labels: Array, *, ignored: int | None = None) -> None:
    """Raise DataError unless ``labels`` are class indices that ``outputs`` can predict."""
    right = "integer class labels 0 .. classes-1, one for each prediction (the output's shape without its last axis)"
    require_numbers(metric, outputs, labels, right)
    labels = squeeze_labels(outputs, labels)
    if labels.dtype.kind == "f":
        raise misfit(metric, outputs, labels, "the labels are floats, not classes", right)
    single = outputs.ndim == labels.ndim or (outputs.ndim == labels.ndim + 1 and outputs.shape[-1] == 1)
    positions = outputs.shape if outputs.ndim == labels.ndim else outputs.shape[:-1]
    if positions != labels.shape:
        raise misfit(metric, outputs, labels, "their shapes don't line up", right)
    if outputs.dtype.kind == "f" and outputs.ndim == labels.ndim == 2:
        problem = "labels of the output's own shape may be one-hot rows or a decision each"
        raise misfit(metric, outputs, labels, problem, right + "; for one-hot labels store their argmax")
    counted = labels if ignored is None else labels[labels != ignored]
    if counted.size == 0:
        raise misfit(metric, outputs, labels, f"all labels are {ignored}, which is ignored", right)
    classes = None if single and outputs.dtype.kind in "biu" else 2 if single else outputs.shape[-1]
    if int(counted.min()) < 0 or (classes is not None and int(counted.max()) >= classes):
        raise misfit(metric, outputs, labels, f"there are labels outside 0 .. {(classes or 1) - 1}", right)


def looks_like_probabilities(outputs: Array) -> bool:
    """True when values lie in 0..1 and rows add up to about 1 (quantized softmax outputs stray a little)."""
    sums = outputs.sum(axis=-1, dtype=np.float64)
    return bool(outputs.min() > -0.01 and outputs.max() < 1.01 and abs(float(sums.mean()) - 1) < 0.05)


def probabilities(outputs: Array) -> Floats:
    """Rows over the last axis as probabilities, float64: softmax unless they are probabilities already."""
    x = outputs.astype(np.float64)
    if looks_like_probabilities(outputs):
        x = np.clip(x, 0.0, 1.0)
        return np.asarray(x / np.maximum(x.sum(axis=-1, keepdims=True), 1e-12))
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))
