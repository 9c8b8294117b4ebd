"""A .parquet file as named arrays: a column an array, list columns become further dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.data.sources import Header, rows_per_chunk
from autopilot.errors import DataError

Array = npt.NDArray[Any]


class ParquetSource:
    """A .parquet file, read column by column in batches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.headers: dict[str, Header] = {}
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as exc:
            raise DataError(f"{path} needs pyarrow to be read.", "Install it: pip install pyarrow.") from exc
        try:
            with pyarrow.parquet.ParquetFile(path) as f:
                self._n = f.metadata.num_rows
                names = f.schema_arrow.names
        except (pyarrow.ArrowException, OSError) as exc:
            raise DataError(f"{path} is not a readable Parquet file: {exc}.", "Write it again.") from exc
        if self._n == 0:
            raise DataError(f"{path} is empty: it has no rows.")
        for name in names:
            self.headers[name] = self._header(name)

    def _batches(self, name: str, rows: int) -> Iterator[Any]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as f:
                for batch in f.iter_batches(batch_size=rows, columns=[name]):
                    # A field of a struct column comes back inside its parent.
                    if batch.num_columns != 1:
                        raise DataError(f"column {name!r} in {self.path} is not a plain or list column.")
                    yield batch.column(0)
        except (pyarrow.ArrowException, OSError) as exc:
            raise DataError(f"column {name!r} in {self.path} can't be read: {exc}.", "Write the file again.") from exc

    def _header(self, name: str) -> Header:
        first = self._array(name, next(self._batches(name, 1)))
        dtype = first.dtype
        if dtype.kind == "U":  # the width must hold the longest text of the column
            dtype = np.dtype(f"U{max(self._array(name, b).dtype.itemsize // 4 for b in self._batches(name, 65536))}")
        return Header(name, dtype, (self._n, *first.shape[1:]))

    def _array(self, name: str, column: Any) -> Array:
        """One batch of a column as an array, shape (rows, ...)."""
        import pyarrow

        types = pyarrow.types
        rows, shape = len(column), []
        while types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
            shape.append(self._length(name, column))
            column = column.flatten()
        self._refuse_nulls(name, column)
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = column.type
        if types.is_string(kind) or types.is_large_string(kind):
            return np.array(column.to_pylist(), dtype=str).reshape(rows, *shape)
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise DataError(
                f"column {name!r} in {self.path} has type {kind}, which is no array.",
                "Store numbers, booleans or (nested) lists of them.",
            )
        flat: Array = column.to_numpy(zero_copy_only=False)
        return flat.reshape(rows, *shape)

    def _refuse_nulls(self, name: str, column: Any) -> None:
        if column.null_count:
            raise DataError(f"column {name!r} in {self.path} holds nulls.", "Fill them in or drop those rows.")

    def _length(self, name: str, column: Any) -> int:
        self._refuse_nulls(name, column)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if len(lengths) and lengths.min() != lengths.max():
            raise DataError(
                f"column {name!r} in {self.path} holds lists of {lengths.min()} to {lengths.max()} elements.",
                "Pad them to one length.",
            )
        return int(lengths[0]) if len(lengths) else 0

    def chunks(self, name: str) -> Iterator[Array]:
        header = self.headers[name]
        for column in self._batches(name, rows_per_chunk(header)):
            array = self._array(name, column)
            if array.shape[1:] != header.shape[1:]:
                raise DataError(
                    f"column {name!r} in {self.path} holds lists of different lengths:"
                    f" {list(header.shape[1:])} and {list(array.shape[1:])}.",
                    "Pad them to one length.",
                )
            yield array.astype(header.dtype, copy=False)
