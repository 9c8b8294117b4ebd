"""Edit distances of many pairs of sequences at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BLOCK = 512  # pairs at a time: the table's row stays in the processor's cache


def edit_distances(mine: Sequence[Array], references: Sequence[Array]) -> npt.NDArray[np.float64]:
    """Levenshtein distances, float64, shape (n,); equal pairs cost nothing.

    >>> edit_distances([np.array([1, 2, 3])], [np.array([1, 3, 3, 4])]).tolist()
    [2.0]
    """
    out = np.zeros(len(mine))
    differing = [i for i, (a, b) in enumerate(zip(mine, references, strict=True)) if not np.array_equal(a, b)]
    differing.sort(key=lambda i: len(mine[i]))  # similar lengths together, less padding
    for start in range(0, len(differing), _BLOCK):
        block = differing[start : start + _BLOCK]
        out[block] = _block([mine[i] for i in block], [references[i] for i in block])
    return out


def _padded(sequences: Sequence[Array], filler: int) -> tuple[Array, Array]:
    lengths = np.array([len(s) for s in sequences])
    table = np.full((len(sequences), int(lengths.max(initial=0))), filler, dtype=np.int64)
    for row, sequence in zip(table, sequences, strict=True):
        row[: len(sequence)] = sequence
    return table, lengths


def _block(mine: Sequence[Array], references: Sequence[Array]) -> npt.NDArray[np.float64]:
    """Wagner-Fischer, a row of the table at a time for all pairs.

    Insertions within a row are a running minimum: row[j] = min over k <= j of row[k] + (j - k).
    """
    a, a_len = _padded(mine, -1)
    b, b_len = _padded(references, -2)
    steps = np.arange(b.shape[1] + 1)
    row = np.broadcast_to(steps, (len(a), len(steps))).copy()
    out = row[np.arange(len(a)), b_len].astype(np.float64)
    for i in range(a.shape[1]):
        best = row + 1
        best[:, 1:] = np.minimum(best[:, 1:], row[:, :-1] + (b != a[:, i : i + 1]))
        row = np.minimum.accumulate(best - steps, axis=1) + steps
        done = a_len == i + 1
        out[done] = row[done, b_len[done]]
    return out
