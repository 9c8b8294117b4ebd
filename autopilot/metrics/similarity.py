"""Metrics without labels: how close the outputs stay to the baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.metrics._fit import misfit
from autopilot.scoring import BoundedMetric

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Options = Mapping[str, Any]


def _decide(x: Array, threshold: float) -> Array:
    """What the model says: classes as they are, one value by threshold, several by argmax over the last axis."""
    if x.dtype.kind != "f":
        return x
    if x.ndim == 1 or x.shape[-1] == 1:
        return x > threshold
    return np.asarray(x.argmax(axis=-1))


def _agreements(outputs: Array, baseline: Array, options: Options) -> Floats:
    """Share of a sample's decisions that equal the baseline's, shape (n,)."""
    threshold = float(options.get("threshold", 0.5))
    same = _decide(outputs, threshold) == _decide(baseline, threshold)
    return np.asarray(same.reshape(len(same), -1).mean(axis=1, dtype=np.float64))


def _agreement(outputs: Array, baseline: Array, options: Options) -> float:
    return float(_agreements(outputs, baseline, options).mean())


def _similarities(outputs: Array, baseline: Array, options: Options) -> Floats:
    """1 - |output - baseline| / |baseline| (Euclidean norms of a sample), at least 0; shape (n,)."""
    x = outputs.reshape(len(outputs), -1).astype(np.float64)
    y = baseline.reshape(len(baseline), -1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.linalg.norm(np.where(x == y, 0.0, x - y), axis=1)  # equal infinities differ by 0, not NaN
    norm = np.linalg.norm(np.where(np.isfinite(y), y, 0.0), axis=1)
    relative = np.divide(error, norm, out=(error > 0).astype(np.float64), where=norm > 0)
    return np.asarray(np.clip(1.0 - relative, 0.0, 1.0))


def _similarity(outputs: Array, baseline: Array, options: Options) -> float:
    return float(_similarities(outputs, baseline, options).mean())


def _check_similarity(outputs: Array, baseline: Array, options: Options) -> None:
    if outputs.dtype.kind not in "biuf":
        raise misfit("output_similarity", outputs, baseline, "the output is not numeric", "a numeric metric.output")


METRICS = (
    BoundedMetric(
        "agreement",
        True,
        _agreement,
        "share of decisions equal to the baseline's",
        _agreements,
        against_baseline=True,
        options={"threshold": 0.5},
    ),
    BoundedMetric(
        "output_similarity",
        True,
        _similarity,
        "1 - relative error against the baseline's outputs",
        _similarities,
        against_baseline=True,
        check=_check_similarity,
    ),
)
