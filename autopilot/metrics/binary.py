"""Two-class metrics: one probability a decision against 0/1 labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Metric
from autopilot.metrics._fit import check_classes, misfit, probabilities, require_numbers, squeeze_labels
from autopilot.scoring import SumMetric

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Options = Mapping[str, Any]

_RIGHT = "labels 0/1 (or bool, or 0/255) and one probability for each: shapes (n,), (n, 1), (n, 2) or maps alike"


def decisions(outputs: Array, labels: Array) -> tuple[Array, Array]:
    """Scores of class 1 and labels as bool, both flat.

    A last axis of 2 that the labels lack holds both classes: its second column is taken, after a
    softmax where rows are no probabilities. Anything else is taken as it is: for logits in one
    column set ``threshold: 0``.
    """
    truth = labels.reshape(-1) > 0
    if outputs.size == 2 * labels.size and outputs.shape[-1] == 2:
        return probabilities(outputs)[..., 1].reshape(-1), truth
    return outputs.reshape(-1), truth


def _check_binary(metric: str, outputs: Array, labels: Array) -> None:
    require_numbers(metric, outputs, labels, _RIGHT)
    values = np.unique(labels)
    if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
        raise misfit(metric, outputs, labels, "the labels have other values than 0 and 1", _RIGHT)
    pairs = outputs.size == 2 * labels.size and outputs.shape[-1] == 2
    if not pairs and outputs.size != labels.size:
        raise misfit(metric, outputs, labels, "their shapes don't line up", _RIGHT)
    if len(values) < 2:
        raise misfit(metric, outputs, labels, "all labels are the same", "samples of both classes")


def _f1(outputs: Array, labels: Array, options: Options) -> float:
    from sklearn.metrics import f1_score

    scores, truth = decisions(outputs, labels)
    return float(f1_score(truth, scores > float(options.get("threshold", 0.5)), zero_division=0))


def _parts(outputs: Array, labels: Array, options: Options) -> Floats:
    """True positives, and positives said plus positives there, of each sample; shape (n, 2)."""
    scores, truth = decisions(outputs, labels)
    said = (scores > float(options.get("threshold", 0.5))).reshape(len(labels), -1)
    there = truth.reshape(len(labels), -1)
    return np.stack([(said & there).sum(axis=1), said.sum(axis=1) + there.sum(axis=1)], axis=1).astype(np.float64)


def _combined(sums: Floats) -> Floats:
    """F1 = 2 TP / (2 TP + FP + FN); 0 where nothing is positive."""
    return np.asarray(2 * sums[:, 0] / np.maximum(sums[:, 1], 1.0))


def _check_f1(outputs: Array, labels: Array, options: Options) -> None:
    _check_binary("f1_binary", outputs, labels)


def is_multiclass(outputs: Array, labels: Array) -> bool:
    """True for (n, classes) scores of three classes or more."""
    return outputs.ndim == 2 and outputs.shape[-1] > 2 and squeeze_labels(outputs, labels).ndim == 1


def _roc_auc(outputs: Array, labels: Array, options: Options) -> float:
    """Area under the ROC curve; with more classes the mean of one against the rest. NaN where a class is missing."""
    from sklearn.metrics import roc_auc_score

    if is_multiclass(outputs, labels):
        truth = squeeze_labels(outputs, labels)
        p = probabilities(outputs)
        seen = np.unique(truth)
        if len(seen) < p.shape[-1]:
            return float("nan")
        return float(roc_auc_score(truth, p, multi_class="ovr", labels=np.arange(p.shape[-1])))
    scores, flags = decisions(outputs, labels)
    return float(roc_auc_score(flags, scores)) if flags.any() and not flags.all() else float("nan")


def _average_precision(outputs: Array, labels: Array, options: Options) -> float:
    """Area under the precision-recall curve; with more classes the mean over them."""
    from sklearn.metrics import average_precision_score

    if is_multiclass(outputs, labels):
        p = probabilities(outputs)
        flags = squeeze_labels(outputs, labels)[:, None] == np.arange(p.shape[-1])
        if not flags.any(axis=0).all():
            return float("nan")
        return float(average_precision_score(flags, p, average="macro"))
    scores, truth = decisions(outputs, labels)
    return float(average_precision_score(truth, scores)) if truth.any() else float("nan")


def _check_ranking(metric: str, outputs: Array, labels: Array) -> None:
    if labels.dtype.kind in "biuf" and is_multiclass(outputs, labels):
        check_classes(metric, outputs, labels)
        if len(np.unique(labels)) < outputs.shape[-1]:
            raise misfit(metric, outputs, labels, "some classes have no sample", "at least one sample of each class")
        return
    _check_binary(metric, outputs, labels)


def _check_roc_auc(outputs: Array, labels: Array, options: Options) -> None:
    _check_ranking("roc_auc", outputs, labels)


def _check_average_precision(outputs: Array, labels: Array, options: Options) -> None:
    _check_ranking("average_precision", outputs, labels)


METRICS = (
    SumMetric(
        "f1_binary",
        True,
        _f1,
        "F1 of class 1 at a threshold",
        options={"threshold": 0.5},
        check=_check_f1,
        parts=_parts,
        combine=_combined,
    ),
    Metric("roc_auc", True, _roc_auc, "area under the ROC curve", check=_check_roc_auc),
    Metric(
        "average_precision", True, _average_precision, "area under precision-recall", check=_check_average_precision
    ),
)
