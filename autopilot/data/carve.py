"""Who goes where: the overlap guard between files and the carving of one file into parts. Pure functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import DataError

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

# Above this share of common samples two files are taken for the same data; below, for a few copies.
MAX_OVERLAP = 0.01


def drop_overlap(
    hashes: Hashes, kept: Index, other: Hashes, *, path: Path, other_path: Path, warnings: list[str]
) -> Index:
    """``kept`` (indices into ``hashes``) without the samples that ``other`` also has.

    Raises:
        DataError: more than MAX_OVERLAP of the smaller side is common to both.
    """
    common = np.isin(hashes[kept], other)
    # Counted on the smaller side: copies within the larger one must not hide or inflate the share.
    mine, theirs = int(common.sum()), int(np.isin(other, hashes[kept]).sum())
    count, size = (mine, len(kept)) if len(kept) <= len(other) else (theirs, len(other))
    if count > MAX_OVERLAP * size:
        raise DataError(
            f"{count} of the {size} samples of the smaller of {path} and {other_path} are in the other file too.",
            "Scored, held-back and training data must not overlap: give disjoint files, or leave one out.",
        )
    if mine:
        warnings.append(f"{mine} sample(s) of {path} are in {other_path} too and were left out of the former")
    return kept[~common]


def stratified_order(kept: Index, hashes: Hashes, labels: Array | None, rng: np.random.Generator) -> list[Index]:
    """Groups of identical samples in a random order whose every stretch has about the same classes.

    The members of class c get the positions (rank + u) / size of c, which spreads each class evenly
    (systematic sampling); without integer labels it is a plain shuffle.
    """
    _, first, group = np.unique(hashes[kept], return_index=True, return_inverse=True)
    classes = np.zeros(len(first), dtype=np.int64)
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iub":
        classes = np.unique(labels[kept][first], return_inverse=True)[1]
    shuffled = rng.permutation(len(first))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    sizes = np.bincount(classes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.arange(len(first)) - starts[classes[by_class]]
    position = (rank + rng.random(len(first))) / sizes[classes[by_class]]
    order = by_class[np.argsort(position, kind="stable")]
    members = np.argsort(group, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return [kept[members[bounds[g] : bounds[g + 1]]] for g in order]


def carve(groups: list[Index], sizes: tuple[int, ...], rng: np.random.Generator, *, path: Path) -> list[Index]:
    """Disjoint parts of about ``sizes`` samples and the rest, as shuffled indices; a group is never split.

    Raises:
        DataError: a part that was asked for stays empty, for the samples are copies of each other.
    """
    parts: list[list[Index]] = [[] for _ in sizes]
    counts = [0] * len(sizes)
    rest: list[Index] = []
    for group in groups:
        free = next((i for i, size in enumerate(sizes) if counts[i] + len(group) <= size), None)
        if free is None:
            rest.append(group)
        else:
            parts[free].append(group)
            counts[free] += len(group)
    if not rest or any(size and not part for size, part in zip(sizes, parts, strict=True)):
        total = sum(len(g) for g in groups)
        raise DataError(
            f"{path} can't be split: its {total} samples are only {len(groups)} different ones.",
            "Give data.test and data.train as files of their own, or more data.",
        )
    return [rng.permutation(np.concatenate(part)) if part else np.empty(0, np.int64) for part in [*parts, rest]]
