"""Regression metrics: real outputs against real labels, and the angle between vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Metric
from autopilot.metrics._fit import misfit, require_numbers
from autopilot.scoring import BoundedMetric, SumMetric

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Options = Mapping[str, Any]

_RIGHT = "numeric labels with one value for each value of the output"


def _columns(x: Array) -> Floats:
    """Shape (n, values of a sample), float64."""
    return x.reshape(len(x), -1).astype(np.float64)


def _check(metric: str) -> Callable[[Array, Array, Options], None]:
    def check(outputs: Array, labels: Array, options: Options) -> None:
        require_numbers(metric, outputs, labels, _RIGHT)
        if _columns(outputs).shape != _columns(labels).shape:
            raise misfit(metric, outputs, labels, "their shapes don't line up", _RIGHT)
        varies = metric in ("r2", "pearson", "spearman")
        if varies and np.any(_columns(labels).std(axis=0) == 0):
            raise misfit(metric, outputs, labels, "the labels are constant", "labels that vary")

    return check


def _errors(outputs: Array, labels: Array, options: Options) -> Floats:
    """Mean absolute error a sample, shape (n,), in the label's unit."""
    return np.asarray(np.abs(_columns(outputs) - _columns(labels)).mean(axis=1), dtype=np.float64)


def _mae(outputs: Array, labels: Array, options: Options) -> float:
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(_columns(labels), _columns(outputs)))


def _rmse(outputs: Array, labels: Array, options: Options) -> float:
    """Root of the mean squared error over all values (scikit-learn averages roots over columns)."""
    from sklearn.metrics import mean_squared_error

    return float(np.sqrt(mean_squared_error(_columns(labels), _columns(outputs))))


def _squares(outputs: Array, labels: Array, options: Options) -> Floats:
    """Mean squared error and 1 for each sample, shape (n, 2)."""
    squares = ((_columns(outputs) - _columns(labels)) ** 2).mean(axis=1)
    return np.stack([squares, np.ones(len(squares))], axis=1)


def _root(sums: Floats) -> Floats:
    return np.asarray(np.sqrt(sums[:, 0] / sums[:, 1]))


def _r2(outputs: Array, labels: Array, options: Options) -> float:
    """R2, the plain mean over output columns; ``multioutput: variance_weighted`` is 1 - SSE/SST over all values."""
    from sklearn.metrics import r2_score

    truth = _columns(labels)
    if np.all(truth.std(axis=0) == 0):
        return float("nan")  # a resample of one value
    return float(r2_score(truth, _columns(outputs), multioutput=options.get("multioutput", "uniform_average")))


def _correlation(outputs: Floats, labels: Floats) -> float:
    """Pearson's r, mean over columns; a constant prediction correlates with nothing: 0."""
    x, y = outputs - outputs.mean(axis=0), labels - labels.mean(axis=0)
    norm = np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    r = np.divide((x * y).sum(axis=0), norm, out=np.zeros_like(norm), where=norm > 0)
    return float(np.clip(r, -1.0, 1.0).mean())


def _pearson(outputs: Array, labels: Array, options: Options) -> float:
    return _correlation(_columns(outputs), _columns(labels))


def _spearman(outputs: Array, labels: Array, options: Options) -> float:
    from scipy.stats import rankdata

    return _correlation(rankdata(_columns(outputs), axis=0), rankdata(_columns(labels), axis=0))


def cosines(outputs: Array, labels: Array, options: Options) -> Floats:
    """Cosine of the angle between output and label vector of each sample; 0 where one of them is zero."""
    x, y = _columns(outputs), _columns(labels)
    norm = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosine = np.divide((x * y).sum(axis=1), norm, out=np.zeros_like(norm), where=norm > 0)
    return np.asarray(np.clip(cosine, -1.0, 1.0))


def _cosine(outputs: Array, labels: Array, options: Options) -> float:
    return float(cosines(outputs, labels, options).mean())


METRICS = (
    Metric("mae", False, _mae, "mean absolute error", _errors, check=_check("mae")),
    SumMetric("rmse", False, _rmse, "root mean squared error", check=_check("rmse"), parts=_squares, combine=_root),
    Metric("r2", True, _r2, "explained variance", options={"multioutput": "uniform_average"}, check=_check("r2")),
    Metric("pearson", True, _pearson, "linear correlation", check=_check("pearson")),
    Metric("spearman", True, _spearman, "rank correlation", check=_check("spearman")),
    BoundedMetric(
        "cosine_similarity",
        True,
        _cosine,
        "mean cosine between output and label vectors",
        cosines,
        check=_check("cosine_similarity"),
        sample_range=(-1.0, 1.0),
    ),
)
