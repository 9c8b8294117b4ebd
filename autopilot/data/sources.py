"""Reading .npz and .parquet files an array at a time, in bounded memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from autopilot.errors import DataError

Array = npt.NDArray[Any]

# Large enough that numpy works on whole blocks, small enough that a few of them don't matter to the
# parent's memory (600 MB in all).
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a stored array before it is read: native ``dtype`` and ``shape``."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def text(self) -> str:
        """``uint8[5000, 1, 28, 28]``, for messages."""
        return f"{self.dtype.name}{list(self.shape)}"


class Source(Protocol):
    """A file of named arrays."""

    path: Path
    headers: dict[str, Header]

    def chunks(self, name: str) -> Iterator[Array]:
        """The array in consecutive pieces of about CHUNK_BYTES along axis 0; a 0-d array in one piece."""


def rows_per_chunk(header: Header) -> int:
    """How many samples of an array make up about CHUNK_BYTES; at least 1."""
    row = header.dtype.itemsize * int(np.prod(header.shape[1:], dtype=np.int64))
    return max(1, CHUNK_BYTES // max(1, row))


def open_source(path: Path) -> Source:
    """The arrays of a .npz or .parquet file; reads names, types and shapes only.

    Raises:
        DataError: the file is missing, damaged, of another kind, or holds pickled Python objects.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"data file {path} {what}.", "Paths in a spec are relative to the spec file.")
    kind = path.suffix.lower()
    if kind == ".npz":
        return NpzSource(path)
    if kind == ".parquet":
        from autopilot.data.parquet import ParquetSource

        return ParquetSource(path)
    raise DataError(f"data file {path} is neither .npz nor .parquet.", "Save it with numpy.savez or as Parquet.")


class NpzSource:
    """A .npz file, streamed member by member; nothing is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.headers: dict[str, Header] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.endswith(".npy"):
                        with archive.open(member) as f:
                            name = member.removesuffix(".npy")
                            self.headers[name] = self._header(name, f)[0]
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as exc:
            raise DataError(f"{path} is not a whole .npz file: {exc}.", "Write it again with numpy.savez.") from exc
        if not self.headers:
            raise DataError(f"{path} holds no arrays.", "Write it with numpy.savez(file, name=array, ...).")

    def _header(self, name: str, f: IO[bytes]) -> tuple[Header, bool, np.dtype[Any]]:
        """Header, whether the array is stored in Fortran order, and the stored dtype."""
        version = np.lib.format.read_magic(f)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, stored = read(f)
        if stored.hasobject:
            raise DataError(
                f"array {name!r} in {self.path} holds Python objects; reading them could run code, so it is refused.",
                "Store numbers of equal length (pad shorter samples) or, for strings, a fixed-width text array.",
            )
        if stored.names is not None:
            raise DataError(f"array {name!r} in {self.path} is a record array.", "Store each field as its own array.")
        return Header(name, stored.newbyteorder("="), shape), fortran, stored

    def chunks(self, name: str) -> Iterator[Array]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as f:
                header, fortran, stored = self._header(name, f)
                if fortran or not header.shape:
                    yield from self._whole(archive, name, header)
                else:
                    yield from self._stream(f, header, stored)
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as exc:
            raise DataError(f"array {name!r} in {self.path} can't be read: {exc}.", "Write the file again.") from exc

    @staticmethod
    def _whole(archive: zipfile.ZipFile, name: str, header: Header) -> Iterator[Array]:
        with archive.open(f"{name}.npy") as f:
            array = np.lib.format.read_array(f, allow_pickle=False)
        array = np.asarray(array, dtype=header.dtype, order="C")
        if array.ndim == 0:
            yield array
        step = rows_per_chunk(header)
        for start in range(0, array.shape[0] if array.ndim else 0, step):
            yield array[start : start + step]

    @staticmethod
    def _stream(f: IO[bytes], header: Header, stored: np.dtype[Any]) -> Iterator[Array]:
        n, item = header.shape[0], header.shape[1:]
        row = stored.itemsize * int(np.prod(item, dtype=np.int64))
        step = rows_per_chunk(header)
        for start in range(0, n, step):
            count = min(step, n - start)
            data = f.read(count * row)
            if len(data) != count * row:
                raise EOFError("it ends early")
            yield np.frombuffer(data, dtype=stored).reshape(count, *item).astype(header.dtype, copy=False)
