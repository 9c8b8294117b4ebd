"""How far a model's outputs moved: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Array

# Stands for "as far as it gets", where outputs are not finite.
_FARTHEST = 1e9
Doubles = npt.NDArray[np.float64]


def divergence(expected: Sequence[Sequence[Array]], got: Sequence[Sequence[Array]], classification: bool) -> float:
    """Distance between two models' answers; each argument holds, a request, one array an output.

    For classification the mean KL divergence, in nats, of the first output's distributions over its
    last axis (logits are softmaxed, a single score is one of two classes); otherwise the largest,
    over the float outputs, of the mean squared error relative to the variance.

    >>> divergence([[np.array([[1.0, 0.0]])]], [[np.array([[1.0, 0.0]])]], classification=True)
    0.0
    """
    if classification and expected[0][0].dtype.kind == "f" and expected[0][0].ndim > 0:
        shape = (-1, expected[0][0].shape[-1])
        a, b = (np.concatenate([np.reshape(r[0], shape) for r in rows]) for rows in (expected, got))
        return _kl(a.astype(np.float64), b.astype(np.float64))
    worst = 0.0
    for k, first in enumerate(expected[0]):
        if first.dtype.kind != "f":
            continue
        a, b = (np.concatenate([np.ravel(r[k]) for r in rows]).astype(np.float64) for rows in (expected, got))
        worst = max(worst, _finite(np.mean((a - b) ** 2) / max(float(np.var(a)), 1e-12)))
    return worst


def _kl(expected: Doubles, got: Doubles) -> float:
    """Mean KL(expected || got) of the rows of two arrays, shape (n, classes)."""
    probabilities = bool(expected.min() >= 0 and expected.max() <= 1)
    if expected.shape[-1] == 1:
        others = (1 - expected, 1 - got) if probabilities else (0 * expected, 0 * got)
        expected, got = np.hstack([expected, others[0]]), np.hstack([got, others[1]])
    elif probabilities:
        probabilities = bool(np.allclose(expected.sum(axis=-1), 1.0, atol=1e-3))
    p, q = (_distribution(x, probabilities) for x in (expected, got))
    return _finite(np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=-1)))


def _distribution(values: Doubles, probabilities: bool) -> Doubles:
    if not probabilities:
        values = np.exp(values - values.max(axis=-1, keepdims=True))
    clipped = np.clip(values, 1e-12, None)
    return np.asarray(clipped / clipped.sum(axis=-1, keepdims=True))


def _finite(value: Any) -> float:
    return float(value) if np.isfinite(value) else _FARTHEST
