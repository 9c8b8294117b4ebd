"""How stored arrays become model inputs: one resolved, JSON-able mapping an input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Factor = float | tuple[float, ...] | None


def fits(shape: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    """True when ``shape`` equals ``wanted`` in rank and in every fixed dimension.

    >>> fits((3, 8, 8), (3, "height", None))
    True
    """
    return len(shape) == len(wanted) and all(
        not isinstance(w, int) or w == s for s, w in zip(shape, wanted, strict=True)
    )


def is_text(dtype: str) -> bool:
    """True for the numpy names a string input may go by."""
    return dtype in ("object", "str", "string", "str_", "bytes")


@dataclass(frozen=True, slots=True)
class InputMap:
    """One model input, fully resolved against the model and the file.

    ``source`` is the stored array's name, None for a constant. ``shared``: the array has no sample
    dimension. ``pad`` trailing dimensions of size 1 are added to it. ``axis`` is where per-channel
    factors lie, counted from the end of the mapped array (negative), so that it holds with and
    without the sample dimension. ``shape``: the final shape of a constant or shared input.
    The value is ``(x * scale + offset - mean) / std``, computed in float32 for inputs of at most
    32-bit floats and in float64 otherwise; integers are truncated toward zero as numpy's astype does.
    """

    name: str
    dtype: str
    source: str | None = None
    shared: bool = False
    varying: bool = False
    pad: int = 0
    scale: Factor = None
    offset: Factor = None
    mean: Factor = None
    std: Factor = None
    axis: int = -1
    shape: tuple[int, ...] | None = None
    constant: Any = None

    @property
    def calculates(self) -> bool:
        """True when values change, not only their type."""
        return any(f is not None for f in (self.scale, self.offset, self.mean, self.std))

    def apply(self, raw: Mapping[str, Array]) -> Array:
        """The model input, contiguous and never a view of a stored array.

        ``raw``: stored arrays by name, with the sample dimension first or of one sample without it.
        """
        if self.source is None:
            values = np.asarray(self.constant)
            shape = self.shape if self.shape is not None else values.shape
            spread = np.broadcast_to(values, shape) if values.ndim == 0 else values.reshape(shape)
            return np.array(spread, dtype=self.dtype, order="C")
        x = raw[self.source]
        if self.shared and self.shape is not None:
            x = x.reshape(self.shape)
        if self.pad:
            x = x.reshape(x.shape + (1,) * self.pad)
        if self.calculates:
            x = self._calculate(x)
        if is_text(self.dtype):
            return np.array(x, order="C")
        return np.array(x, dtype=self.dtype, order="C")

    def _calculate(self, x: Array) -> Array:
        target = np.dtype(self.dtype)
        work = np.dtype(np.float32 if target.kind == "f" and target.itemsize <= 4 else np.float64)
        x = x.astype(work)
        if self.scale is not None:
            x *= self._factor(self.scale, x, work)
        if self.offset is not None:
            x += self._factor(self.offset, x, work)
        if self.mean is not None:
            x -= self._factor(self.mean, x, work)
        if self.std is not None:
            x /= self._factor(self.std, x, work)
        return x

    def _factor(self, factor: float | tuple[float, ...], x: Array, work: np.dtype[Any]) -> Array:
        values = np.asarray(factor, dtype=work)
        if values.ndim == 0:
            return values
        return values.reshape((-1,) + (1,) * (-1 - self.axis))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> InputMap:
        fixed: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) and k != "constant" else v for k, v in value.items()
        }
        return cls(**fixed)
