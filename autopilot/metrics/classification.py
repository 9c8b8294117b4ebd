"""Class metrics: the argmax over the last axis against integer labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Metric
from autopilot.metrics._fit import (
    check_classes,
    misfit,
    predicted,
    probabilities,
    require_numbers,
    squeeze_labels,
)
from autopilot.scoring import BoundedMetric

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Options = Mapping[str, Any]


def _hits(outputs: Array, labels: Array, options: Options) -> Floats:
    """Share of right predictions a sample, shape (n,)."""
    labels = squeeze_labels(outputs, labels)
    right = predicted(outputs, labels, float(options.get("threshold", 0.5))) == labels
    return np.asarray(right.reshape(len(right), -1).mean(axis=1, dtype=np.float64))


def _accuracy(outputs: Array, labels: Array, options: Options) -> float:
    return float(_hits(outputs, labels, options).mean())


def _check_accuracy(outputs: Array, labels: Array, options: Options) -> None:
    check_classes("accuracy", outputs, labels)


def _top5(outputs: Array, labels: Array, options: Options) -> Floats:
    """1 where fewer than five classes score above the label's; ties count for the label."""
    labels = squeeze_labels(outputs, labels)
    own = np.take_along_axis(outputs, labels[..., None].astype(np.int64), axis=-1)
    hit = (outputs > own).sum(axis=-1) < 5
    return np.asarray(hit.reshape(len(hit), -1).mean(axis=1, dtype=np.float64))


def _top5_score(outputs: Array, labels: Array, options: Options) -> float:
    return float(_top5(outputs, labels, options).mean())


def _check_top5(outputs: Array, labels: Array, options: Options) -> None:
    check_classes("top5_accuracy", outputs, labels)
    labels = squeeze_labels(outputs, labels)
    if outputs.ndim != labels.ndim + 1 or outputs.shape[-1] <= 5:
        raise misfit("top5_accuracy", outputs, labels, "five guesses always hit", "scores of more than 5 classes")


def _balanced(outputs: Array, labels: Array, options: Options) -> float:
    """Mean recall over the classes that occur."""
    from sklearn.metrics import balanced_accuracy_score

    labels = squeeze_labels(outputs, labels)
    guess = predicted(outputs, labels, float(options.get("threshold", 0.5)))
    with warnings.catch_warnings():
        # scikit-learn warns of predicted classes that don't occur, the rule in resampled data.
        warnings.simplefilter("ignore")
        return float(balanced_accuracy_score(labels.reshape(-1), guess.reshape(-1)))


def _check_balanced(outputs: Array, labels: Array, options: Options) -> None:
    check_classes("balanced_accuracy", outputs, labels)


def is_multilabel(outputs: Array, labels: Array) -> bool:
    """True for labels of the float output's own shape (n, classes): several classes may hold at once."""
    return labels.ndim > 1 and labels.shape == outputs.shape and labels.shape[-1] > 1 and outputs.dtype.kind == "f"


def _f1(average: str, outputs: Array, labels: Array, options: Options) -> float:
    from sklearn.metrics import f1_score

    threshold = float(options.get("threshold", 0.5))
    if is_multilabel(outputs, labels):
        width = labels.shape[-1]
        truth, guess = labels.reshape(-1, width) > 0, outputs.reshape(-1, width) > threshold
    else:
        labels = squeeze_labels(outputs, labels)
        truth, guess = labels.reshape(-1), predicted(outputs, labels, threshold).reshape(-1)
    return float(f1_score(truth.astype(np.int64), guess.astype(np.int64), average=average, zero_division=0))


def _f1_micro(outputs: Array, labels: Array, options: Options) -> float:
    return _f1("micro", outputs, labels, options)


def _f1_macro(outputs: Array, labels: Array, options: Options) -> float:
    return _f1("macro", outputs, labels, options)


def _check_f1(name: str, outputs: Array, labels: Array) -> None:
    if labels.dtype.kind in "biu" and is_multilabel(outputs, labels):
        if not np.isin(labels, (0, 1)).all():
            raise misfit(name, outputs, labels, "labels of the output's shape must be 0 or 1", "0/1 labels a class")
        return
    check_classes(name, outputs, labels)


def _check_f1_micro(outputs: Array, labels: Array, options: Options) -> None:
    _check_f1("f1_micro", outputs, labels)


def _check_f1_macro(outputs: Array, labels: Array, options: Options) -> None:
    _check_f1("f1_macro", outputs, labels)


def _is_single(outputs: Array, labels: Array) -> bool:
    return outputs.ndim == labels.ndim or outputs.shape[-1] == 1


def _losses(outputs: Array, labels: Array, options: Options) -> Floats:
    """Cross-entropy a sample in nats. Logits or probabilities; one value a sample is that of class 1."""
    labels = squeeze_labels(outputs, labels)
    eps = float(np.finfo(outputs.dtype).eps)  # where scikit-learn clips too
    if _is_single(outputs, labels):
        p = outputs.reshape(labels.shape).astype(np.float64)
        if p.min() < 0 or p.max() > 1:
            p = 1 / (1 + np.exp(-np.clip(p, -700, 700)))
        own = np.where(labels > 0, p, 1 - p)
    else:
        own = np.take_along_axis(probabilities(outputs), labels[..., None].astype(np.int64), axis=-1)[..., 0]
    loss = -np.log(np.clip(own, eps, 1 - eps))
    return np.asarray(loss.reshape(len(loss), -1).mean(axis=1), dtype=np.float64)


def _log_loss(outputs: Array, labels: Array, options: Options) -> float:
    return float(_losses(outputs, labels, options).mean())


def _check_log_loss(outputs: Array, labels: Array, options: Options) -> None:
    check_classes("log_loss", outputs, labels)
    if outputs.dtype.kind != "f":
        right = "logits or probabilities (set metric.output)"
        require_numbers("log_loss", outputs, labels, right)
        raise misfit("log_loss", outputs, labels, "the output holds classes, not scores", right)


_THRESHOLD = {"threshold": 0.5}

METRICS = (
    BoundedMetric(
        "accuracy", True, _accuracy, "share of right classes", _hits, options=_THRESHOLD, check=_check_accuracy
    ),
    BoundedMetric("top5_accuracy", True, _top5_score, "share of labels in the top 5", _top5, check=_check_top5),
    Metric("balanced_accuracy", True, _balanced, "mean recall over classes", options=_THRESHOLD, check=_check_balanced),
    Metric("f1_micro", True, _f1_micro, "F1 over all decisions", options=_THRESHOLD, check=_check_f1_micro),
    Metric("f1_macro", True, _f1_macro, "mean F1 over classes", options=_THRESHOLD, check=_check_f1_macro),
    Metric("log_loss", False, _log_loss, "cross-entropy in nats", _losses, check=_check_log_loss),
)
