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
_JITTER = 1e-8


@dataclass(frozen=True, slots=True)
class Choices:
    """Variants as rows of numbers.

    codes: float64, shape (rows, choices): of a category its index, of a number its place between least and
        most seen (0..1); NaN where the variant doesn't have the choice.
    is_number: bool, shape (choices,).
    names: of the choices.
    """

    codes: Floats
    is_number: npt.NDArray[np.bool_]

    names: tuple[str, ...] = ()

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
        return cls(codes, is_number, tuple(names))

    def distances(self, row: int) -> Floats:
        """From one row to all: shape (choices, rows), each 0..1."""
        mine, others = self.codes[row][:, None], self.codes.T
        lacks, lack = np.isnan(mine), np.isnan(others)
        apart = np.where(self.is_number[:, None], np.abs(mine - others), mine != others)
        found: Floats = np.where(lacks | lack, (lacks ^ lack).astype(np.float64), apart)
        return found


class Table:
    """Rows of choices with their distances, each computed once."""

    def __init__(self, rows: Sequence[Mapping[str, Scalar]]) -> None:
        self._choices = Choices.of(rows)
        self._known: dict[int, Floats] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The choices, by name."""
        return self._choices.names

    def distances(self, row: int) -> Floats:
        """From ``row`` to all rows: shape (choices, rows)."""
        if row not in self._known:
            self._known[row] = self._choices.distances(row)
        return self._known[row]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Posterior mean and standard deviation of each row, float64, shape (rows,)."""

    mean: Floats
    std: Floats


@dataclass(frozen=True, slots=True)
class Observations:
    """Values seen at some ``rows`` of a table.

    value, noise: float64, shape (len(rows),), noise as a standard deviation.
    """

    rows: Sequence[int]
    value: Floats
    noise: Floats


class Surrogate:
    """The answer to one question about the rows of ``table``; ``weights`` of each choice, float64, shape (choices,)."""

    def __init__(self, table: Table, weights: Mapping[str, float] | None = None) -> None:
        """``weights``: by name, what an earlier fit found."""
        self._table = table
        known = weights or {}
        self.weights: Floats = np.array([known.get(name, _FIRST_WEIGHT) for name in table.names])
        self._alike: dict[int, Floats] = {}  # of a row to all, under these weights

    def on(self, table: Table) -> Surrogate:
        """The same question about the rows of another table."""
        return Surrogate(table, dict(zip(self._table.names, self.weights.tolist(), strict=True)))

    def fit(self, seen: Observations) -> None:
        """Weigh the choices by climbing the evidence one choice at a time, from the weights there are."""
        rows = list(seen.rows)
        if len(rows) < 3:
            return
        distances = np.stack([self._table.distances(row)[:, rows] for row in rows], axis=1)
        value, noise = _standard(seen.value, seen.noise)
        weights = self.weights
        exponent = np.tensordot(weights, distances, 1)
        best = _evidence(exponent, value, noise) - _PRIOR * _surprise(weights)
        for _ in range(_SWEEPS):
            before = weights
            for d in (d for d in range(len(weights)) if distances[d].any()):
                for weight in _WEIGHTS:
                    if weight == weights[d]:
                        continue
                    tried = weights.copy()
                    tried[d] = weight
                    shifted = exponent + (weight - weights[d]) * distances[d]
                    found = _evidence(shifted, value, noise) - _PRIOR * _surprise(tried)
                    if found > best:
                        best, weights, exponent = found, tried, shifted
            if weights is before:
                break
        self.weights = weights
        self._alike.clear()

    def predict(self, seen: Observations) -> Prediction:
        """What every row of the table may give, in the unit of the observed values."""
        value, noise = _standard(seen.value, seen.noise)
        across = np.stack([self._likeness(row) for row in seen.rows])
        own = across[:, list(seen.rows)]
        lower = np.linalg.cholesky(own + np.diag(noise**2 + _JITTER))
        half = np.linalg.solve(lower, across)
        mean = half.T @ np.linalg.solve(lower, value)
        variance = np.clip(1.0 - (half**2).sum(0), 1e-12, None)
        centre, scale = _centre(seen.value)
        return Prediction(centre + scale * mean, scale * np.sqrt(variance))

    def _likeness(self, row: int) -> Floats:
        if row not in self._alike:
            self._alike[row] = np.exp(-self.weights @ self._table.distances(row))
        return self._alike[row]


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
