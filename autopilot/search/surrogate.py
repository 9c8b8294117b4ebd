"""A Gaussian process over categorical and numeric choices: what variants that weren't tried may give.

Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), chapters 2 and 5. The kernel compares two
variants choice by choice, ``exp(-sum_d weight_d * distance_d)``: for categories the exponentiated Hamming kernel
(Kondor & Lafferty 2002). A choice that only one of two variants has counts as a difference, one that neither has
does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autopilot.domain import Scalar

Floats = npt.NDArray[np.float64]

# How much a choice may matter: from hardly (neighbours are alike) to wholly (they tell nothing of each other).
_WEIGHTS = (0.02, 0.1, 0.4, 1.5)
_FIRST_WEIGHT = 0.4
# Choices mostly matter little: a factor of e in weight costs the fit this much evidence.
_PRIOR = 0.3
_SWEEPS = 2
# The fit costs n^3: this many observations tell the weights.
_MOST_TO_FIT = 120
_JITTER = 1e-8


@dataclass(frozen=True, slots=True)
class Choices:
    """Variants as rows of numbers.

    codes: float64, shape (rows, choices): of a category its index, of a number its place between least and
        most seen (0..1); NaN where the variant doesn't have the choice.
    is_number: bool, shape (choices,).
    """

    codes: Floats
    is_number: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Scalar]]) -> Choices:
        """Encode named choices; a name whose values are all numbers (not truths) is a number."""
        names = sorted({name for row in rows for name in row})
        codes = np.full((len(rows), len(names)), np.nan)
        is_number = np.zeros(len(names), dtype=bool)
        for column, name in enumerate(names):
            given = [(i, row[name]) for i, row in enumerate(rows) if name in row]
            numbers = [float(v) for _, v in given if isinstance(v, (int, float)) and not isinstance(v, bool)]
            is_number[column] = len(numbers) == len(given)
            if is_number[column]:
                low, high = min(numbers), max(numbers)
                values = [(n - low) / (high - low) if high > low else 0.0 for n in numbers]
            else:
                index = {v: float(k) for k, v in enumerate(dict.fromkeys(str(v) for _, v in given))}
                values = [index[str(v)] for _, v in given]
            codes[[i for i, _ in given], column] = values
        return cls(codes, is_number)

    def distances(self, mine: Sequence[int], others: Sequence[int]) -> Floats:
        """Shape (choices, len(mine), len(others)), each 0..1."""
        a, b = self.codes[list(mine)].T[:, :, None], self.codes[list(others)].T[:, None, :]
        only_one = np.isnan(a) ^ np.isnan(b)
        apart = np.where(self.is_number[:, None, None], np.abs(a - b), a != b)
        apart = np.where(np.isnan(a) & np.isnan(b), 0.0, apart)
        return np.where(only_one, 1.0, apart)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Posterior mean and standard deviation of each row, float64, shape (rows,)."""

    mean: Floats
    std: Floats


@dataclass(frozen=True, slots=True)
class Observations:
    """rows: which rows of the choices were observed; value, noise: float64, shape (n,), noise a standard deviation."""

    rows: Sequence[int]
    value: Floats
    noise: Floats


def fit(choices: Choices, seen: Observations, *, start: Floats | None = None) -> Floats:
    """Weight of each choice, float64, shape (choices,), by climbing the evidence one choice at a time.

    ``start``: weights of an earlier fit of the same choices.
    """
    weights = np.full(choices.codes.shape[1], _FIRST_WEIGHT) if start is None else start.copy()
    taken = slice(-_MOST_TO_FIT, None)
    rows = list(seen.rows)[taken]
    if len(rows) < 3:
        return weights
    distances = choices.distances(rows, rows)
    value, noise = _standard(seen.value[taken], seen.noise[taken])
    moves = [d for d in range(len(weights)) if distances[d].any()]
    exponent = np.tensordot(weights, distances, 1)
    best = _evidence(exponent, value, noise) - _PRIOR * _surprise(weights)
    for _ in range(_SWEEPS if start is None else 1):
        for d in moves:
            for weight in _WEIGHTS:
                if weight == weights[d]:
                    continue
                tried = weights.copy()
                tried[d] = weight
                shifted = exponent + (weight - weights[d]) * distances[d]
                found = _evidence(shifted, value, noise) - _PRIOR * _surprise(tried)
                if found > best:
                    best, weights, exponent = found, tried, shifted
    return weights


def predict(choices: Choices, seen: Observations, weights: Floats) -> Prediction:
    """What every row may give, in the unit of the observed values."""
    n = choices.codes.shape[0]
    if not len(seen.rows):
        return Prediction(np.zeros(n), np.ones(n))
    value, noise = _standard(seen.value, seen.noise)
    rows = list(seen.rows)
    own = np.exp(-np.tensordot(weights, choices.distances(rows, rows), 1))
    across = np.exp(-np.tensordot(weights, choices.distances(rows, range(n)), 1))
    lower = np.linalg.cholesky(own + np.diag(noise**2 + _JITTER))
    half = np.linalg.solve(lower, across)
    mean = half.T @ np.linalg.solve(lower, value)
    variance = np.clip(1.0 - (half**2).sum(0), 1e-12, None)
    centre, scale = _centre(seen.value)
    return Prediction(centre + scale * mean, scale * np.sqrt(variance))


def _centre(value: Floats) -> tuple[float, float]:
    spread = float(value.std()) if value.size > 1 else 0.0
    return float(value.mean()), spread if spread > 1e-9 else 1.0


def _standard(value: Floats, noise: Floats) -> tuple[Floats, Floats]:
    centre, scale = _centre(value)
    return (value - centre) / scale, np.maximum(noise / scale, 1e-3)


def _surprise(weights: Floats) -> float:
    return float(np.abs(np.log(weights / _WEIGHTS[0])).sum())


def _evidence(exponent: Floats, value: Floats, noise: Floats) -> float:
    """Log marginal likelihood, without its constant."""
    try:
        lower = np.linalg.cholesky(np.exp(-exponent) + np.diag(noise**2 + _JITTER))
    except np.linalg.LinAlgError:
        return -np.inf
    half = np.linalg.solve(lower, value)
    return float(-0.5 * half @ half - np.log(np.diag(lower)).sum())
