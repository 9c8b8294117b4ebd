"""Sequence metrics: tokens position by position, and texts read from CTC outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.metrics._edit import edit_distances
from autopilot.metrics._fit import check_classes, misfit, predicted, require_numbers
from autopilot.scoring import BoundedMetric, SumMetric

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Options = Mapping[str, Any]

_RIGHT = "integer labels of shape (n, length), padded with the pad label, and an output (n, time, classes)"


def _tokens(outputs: Array, labels: Array, options: Options) -> tuple[Array, Array]:
    """Right positions and counted positions, bool, shape (n, positions)."""
    counted = labels != options.get("pad", -1)
    right = (predicted(outputs, labels) == labels) & counted
    return right.reshape(len(right), -1), counted.reshape(len(counted), -1)


def _token_parts(outputs: Array, labels: Array, options: Options) -> Floats:
    """Right and counted tokens of each sample, shape (n, 2)."""
    right, counted = _tokens(outputs, labels, options)
    return np.stack([right.sum(axis=1), counted.sum(axis=1)], axis=1).astype(np.float64)


def _share(sums: Floats) -> Floats:
    """The first part over the second; NaN where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(sums[:, 1] > 0, sums[:, 0] / sums[:, 1], np.nan))


def _token_accuracy(outputs: Array, labels: Array, options: Options) -> float:
    return float(_share(_token_parts(outputs, labels, options).sum(axis=0, keepdims=True))[0])


def _whole(outputs: Array, labels: Array, options: Options) -> Floats:
    right, counted = _tokens(outputs, labels, options)
    return np.asarray(np.all(right | ~counted, axis=1), dtype=np.float64)


def _whole_score(outputs: Array, labels: Array, options: Options) -> float:
    return float(_whole(outputs, labels, options).mean())


def _check_tokens(metric: str) -> Callable[[Array, Array, Options], None]:
    def check(outputs: Array, labels: Array, options: Options) -> None:
        require_numbers(metric, outputs, labels, _RIGHT)
        if labels.ndim < 2:
            raise misfit(metric, outputs, labels, "the labels are no sequences", _RIGHT)
        check_classes(metric, outputs, labels, ignored=int(options.get("pad", -1)))

    return check


def decode(outputs: Array, options: Options) -> list[Array]:
    """The best path of each sample, repeats merged and blanks removed (Graves et al. 2006).

    ``outputs``: scores (n, time, classes), (time, n, classes) with ``time_major``, or class
    indices (n, time). ``ctc: false`` keeps repeats and removes blanks only.
    """
    if options.get("time_major", False):
        outputs = outputs.swapaxes(0, 1)
    path = outputs if outputs.dtype.kind in "iu" else outputs.argmax(axis=-1)
    path = path.reshape(len(path), -1)
    keep = path != options.get("blank", 0)
    if options.get("ctc", True):
        keep[:, 1:] &= path[:, 1:] != path[:, :-1]
    return [row[k] for row, k in zip(path, keep, strict=True)]


def _references(labels: Array, options: Options) -> list[Array]:
    flat = labels.reshape(len(labels), -1)
    return [row[row != options.get("pad", -1)] for row in flat]


def _ctc_hits(outputs: Array, labels: Array, options: Options) -> Floats:
    pairs = zip(decode(outputs, options), _references(labels, options), strict=True)
    return np.array([np.array_equal(a, b) for a, b in pairs], dtype=np.float64)


def _ctc_score(outputs: Array, labels: Array, options: Options) -> float:
    return float(_ctc_hits(outputs, labels, options).mean())


def _edit_parts(outputs: Array, labels: Array, options: Options) -> Floats:
    """Edits and reference characters of each sample, shape (n, 2)."""
    references = _references(labels, options)
    lengths = np.array([len(r) for r in references], dtype=np.float64)
    return np.stack([edit_distances(decode(outputs, options), references), lengths], axis=1)


def _error_rate(outputs: Array, labels: Array, options: Options) -> float:
    return float(_share(_edit_parts(outputs, labels, options).sum(axis=0, keepdims=True))[0])


def _check_ctc(metric: str) -> Callable[[Array, Array, Options], None]:
    def check(outputs: Array, labels: Array, options: Options) -> None:
        swapped = outputs.swapaxes(0, 1) if options.get("time_major", False) and outputs.ndim > 1 else outputs
        require_numbers(metric, swapped, labels, _RIGHT)
        if labels.dtype.kind == "f" or labels.ndim != 2:
            raise misfit(metric, outputs, labels, "the labels are no integer sequences", _RIGHT)
        if outputs.ndim != (2 if outputs.dtype.kind in "iu" else 3):
            raise misfit(metric, outputs, labels, "the output is no sequence of class scores", _RIGHT)
        counted = labels[labels != options.get("pad", -1)]
        if counted.size == 0:
            raise misfit(metric, outputs, labels, "all labels are padding", _RIGHT)
        if (counted == options.get("blank", 0)).any():
            raise misfit(metric, outputs, labels, "the labels contain the blank", _RIGHT + "; set blank or pad")
        if outputs.dtype.kind == "f" and (counted.min() < 0 or counted.max() >= outputs.shape[-1]):
            raise misfit(metric, outputs, labels, f"there are labels outside 0 .. {outputs.shape[-1] - 1}", _RIGHT)

    return check


_PAD = {"pad": -1}
_CTC = {"blank": 0, "pad": -1, "time_major": False}

METRICS = (
    SumMetric(
        "token_accuracy",
        True,
        _token_accuracy,
        "share of right tokens, padding left out",
        options=_PAD,
        check=_check_tokens("token_accuracy"),
        parts=_token_parts,
        combine=_share,
    ),
    BoundedMetric(
        "sequence_accuracy",
        True,
        _whole_score,
        "share of sequences with every token right",
        _whole,
        options=_PAD,
        check=_check_tokens("sequence_accuracy"),
    ),
    BoundedMetric(
        "ctc_sequence_accuracy",
        True,
        _ctc_score,
        "share of texts read without an error (greedy CTC)",
        _ctc_hits,
        options=_CTC,
        check=_check_ctc("ctc_sequence_accuracy"),
    ),
    SumMetric(
        "character_error_rate",
        False,
        _error_rate,
        "edits per reference character (greedy CTC)",
        options={**_CTC, "ctc": True},
        check=_check_ctc("character_error_rate"),
        parts=_edit_parts,
        combine=_share,
    ),
)
