"""One pass over a file's arrays: to disk as .npy, values checked, samples hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from autopilot.data.resolve import FilePlan
from autopilot.data.sources import CHUNK_BYTES, Header, rows_per_chunk
from autopilot.errors import DataError

Array = npt.NDArray[Any]
Hashes = npt.NDArray[np.uint64]


def write_header(f: BinaryIO, header: Header) -> None:
    """The .npy header of a C-ordered array; its data follow as raw bytes."""
    described = {"descr": np.lib.format.dtype_to_descr(header.dtype), "fortran_order": False, "shape": header.shape}
    np.lib.format.write_array_header_2_0(f, described)


class Unpacked:
    """A data file's arrays as .npy files in a folder, with one hash a sample.

    ``hashes``: uint64, shape (n,), the first 8 bytes of a sha256 over the sample's stored input
    arrays. Two different samples share one with a probability below n^2 / 2^64.
    """

    def __init__(self, plan: FilePlan, folder: Path, hash_types: Mapping[str, np.dtype[Any]]) -> None:
        self.plan = plan
        self._folder = folder
        folder.mkdir(parents=True)
        chain = np.zeros((plan.n, 32), dtype=np.uint8)
        for i, name in enumerate([*plan.stored, *plan.shared]):
            with (folder / f"{i}.npy").open("wb") as f:
                write_header(f, plan.source.headers[name])
                hashed = chain if name in hash_types and name in plan.stored else None
                self._copy(name, f, hashed, hash_types.get(name))
        self.hashes: Hashes = chain[:, :8].copy().view(np.uint64).reshape(plan.n)

    def path(self, name: str) -> Path:
        """Where the array called ``name`` lies."""
        return self._folder / f"{[*self.plan.stored, *self.plan.shared].index(name)}.npy"

    def _copy(self, name: str, f: BinaryIO, chain: Array | None, hash_type: np.dtype[Any] | None) -> None:
        check = ValueCheck(self.plan, name)
        start = 0
        for chunk in self.plan.source.chunks(name):
            check.add(chunk)
            f.write(np.ascontiguousarray(chunk).tobytes())
            if chain is not None and hash_type is not None:
                _extend(chain[start : start + len(chunk)], chunk.astype(hash_type, copy=False))
                start += len(chunk)
        check.finish()


def _extend(chain: Array, chunk: Array) -> None:
    """``chain[i] = sha256(chain[i] + bytes of chunk[i])``."""
    rows = np.ascontiguousarray(chunk).reshape(len(chunk), -1)
    for i in range(len(rows)):
        digest = hashlib.sha256(chain[i].tobytes() + rows[i].tobytes()).digest()
        chain[i] = np.frombuffer(digest, dtype=np.uint8)


class ValueCheck:
    """Counts the values of one array that can't be used."""

    def __init__(self, plan: FilePlan, name: str) -> None:
        self._where = f"array {name!r} in {plan.source.path}"
        self._hint = "Drop or fill in those samples."
        self._is_label = name == plan.label
        # With a preprocess hook (no mapped inputs) filling NaN may be the hook's very task.
        mapped = [m for m in plan.inputs if m.source == name]
        self._checked = bool(mapped) or self._is_label
        numeric = plan.source.headers[name].dtype.kind in "biuf"
        self._targets = {np.dtype(m.dtype) for m in mapped if numeric and not m.calculates}
        self._nan = self._inf = self._seen = 0
        self._first: int | None = None
        self._lost: dict[np.dtype[Any], int] = dict.fromkeys(self._targets, 0)

    def add(self, chunk: Array) -> None:
        if not self._checked or chunk.dtype.kind not in "biuf":
            return
        if chunk.dtype.kind == "f":
            self._nan += int(np.count_nonzero(np.isnan(chunk)))
            self._inf += int(np.count_nonzero(np.isinf(chunk)))
            if self._first is None and (self._nan or self._inf):
                rows = np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1) if chunk.ndim else np.zeros(1, bool)
                self._first = self._seen + int(np.argmin(rows))
            self._seen += len(chunk) if chunk.ndim else 1
        for target in self._targets:
            if target.kind != "b" and not np.can_cast(chunk.dtype, target, "safe"):
                self._lost[target] += _lost(chunk, target)

    def finish(self) -> None:
        """Raises: DataError with the array's name and the count of bad values."""
        if self._nan or self._inf:
            counts = " and ".join(f"{k} {w}" for k, w in ((self._nan, "NaN"), (self._inf, "infinite")) if k)
            raise DataError(f"{self._where} holds {counts} value(s), the first at index {self._first}.", self._hint)
        for target, count in self._lost.items():
            if count:
                raise DataError(f"{self._where} holds {count} value(s) that {target.name} can't hold.", self._hint)


def _lost(chunk: Array, target: np.dtype[Any]) -> int:
    """How many finite values overflow ``target``, or, for integers, are no whole number in its range."""
    with np.errstate(all="ignore"):
        cast = chunk.astype(target)
        if target.kind == "f":
            return int(np.count_nonzero(~np.isfinite(cast)))
        return int(np.count_nonzero(cast.astype(chunk.dtype) != chunk) + np.count_nonzero((cast < 0) != (chunk < 0)))


def gather(source: Path, indices: Sequence[int] | Array, target: Path) -> None:
    """Copy the samples ``indices`` of one .npy file, in that order, into another, in bounded memory.

    Rows are read, not mapped: pages of a mapped file would count to this process's memory.
    """
    index = np.asarray(indices, dtype=np.int64)
    with source.open("rb") as f, target.open("wb") as out:
        np.lib.format.read_magic(f)
        shape, _, dtype = np.lib.format.read_array_header_2_0(f)
        header = Header(source.name, dtype, shape)
        write_header(out, Header(target.name, dtype, (len(index), *shape[1:])))
        row, base = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64)), f.tell()
        if row * shape[0] <= 4 * CHUNK_BYTES:
            whole = np.frombuffer(f.read(), dtype=np.uint8).reshape(shape[0], row)
            out.write(whole[index].tobytes())
            return
        for start in range(0, len(index), rows_per_chunk(header)):
            out.write(b"".join(_rows(f, base, row, index[start : start + rows_per_chunk(header)])))


def _rows(f: BinaryIO, base: int, row: int, index: Array) -> Iterable[bytes]:
    for i in index.tolist():
        f.seek(base + i * row)
        yield f.read(row)
