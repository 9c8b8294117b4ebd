"""Where evaluated outputs go: one .npy file per output, filled batch by batch, ragged ones padded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autopilot.contracts import Array
from autopilot.errors import DataError, Failure, VariantFailed


def padding(dtype: np.dtype) -> float | int:
    """What fills the end of an output that is shorter than the longest one.

    The lowest finite number for floats, so that a padded class never wins an argmax or a top-k
    against a real one; -1 for signed integers, which no class index takes.

    Raises:
        DataError: unsigned, boolean and text outputs have no value to spare.
    """
    if dtype.kind == "f":
        return float(np.finfo(dtype).min)
    if dtype.kind == "i":
        return -1
    raise DataError(
        f"an output of type {dtype} changes its shape from sample to sample, and the type has no value for padding.",
        "Give it one shape in a postprocess hook.",
    )


class OutputFile:
    """One output of samples 0..n-1 as ``path``, shape (n, …), grown in place of a list in memory.

    Every sample has the same shape, or shapes that differ in one dimension, which is padded.
    """

    def __init__(self, name: str, path: Path, n: int) -> None:
        self.name = name
        self.path = path
        self.n = n
        self.non_finite = False
        self.padded = False
        self._file: np.memmap | None = None
        self._done = 0

    def add(self, values: Array) -> None:
        """Append ``values``, shape (samples, …).

        Raises:
            VariantFailed: the shape differs from earlier samples' in rank or in several dimensions.
            DataError: it differs and can't be padded.
        """
        values = values[: self.n - self._done]
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            self.non_finite = True
        if self._file is None:
            self._file = self._create(values.dtype, values.shape[1:], self.path)
        rest = self._file.shape[1:]
        if values.shape[1:] != rest:
            self._grow(values)
        where = (slice(self._done, self._done + len(values)), *(slice(0, size) for size in values.shape[1:]))
        self._file[where] = values
        self._done += len(values)

    def _create(self, dtype: np.dtype, rest: tuple[int, ...], path: Path) -> np.memmap:
        if dtype.hasobject or dtype.kind in "SU":
            raise DataError(
                f"the output {self.name!r} is text, which no metric scores.",
                "Turn it into numbers in a postprocess hook.",
            )
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(self.n, *rest))

    def _grow(self, values: Array) -> None:
        """Make room for a longer sample, and pad from now on."""
        assert self._file is not None
        old, new = self._file.shape[1:], values.shape[1:]
        if len(old) != len(new) or sum(a != b for a, b in zip(old, new, strict=True)) > 1:
            raise VariantFailed(
                Failure.UNSUPPORTED,
                f"the output {self.name!r} has shape {old} for one sample and {new} for another.",
                "Outputs may differ in one dimension; give them one shape in a postprocess hook.",
            )
        fill = padding(self._file.dtype)
        size = tuple(max(a, b) for a, b in zip(old, new, strict=True))
        if self.padded and size == old:
            return
        wider = self._create(self._file.dtype, size, self.path.with_suffix(".wide"))
        wider[:] = fill
        wider[(slice(0, self._done), *(slice(0, n) for n in old))] = self._file[: self._done]
        self._file, self.padded = wider, True
        self.path.with_suffix(".wide").replace(self.path)

    def finish(self, *, drop_first: bool) -> None:
        """Write everything; ``drop_first`` removes the first of the sample's own dimensions, which is 1."""
        assert self._file is not None
        self._file.flush()
        values, self._file = self._file, None
        if drop_first:
            np.save(self.path, np.array(values[:, 0]))

    @property
    def first_is_one(self) -> bool:
        """True when each sample's own first dimension is 1 (a batch dimension the model kept)."""
        return self._file is not None and self._file.ndim > 1 and self._file.shape[1] == 1
