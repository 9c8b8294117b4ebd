"""Inputs that the spec gives as a constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopilot.data.mapping import InputMap, fits
from autopilot.errors import DataError

if TYPE_CHECKING:
    from autopilot.model import TensorInfo
    from autopilot.spec import InputSpec


def resolve_constant(tensor: TensorInfo, spec: InputSpec, batched: bool) -> InputMap:
    """The mapping of ``{constant, shape, dtype}`` onto a model input.

    Raises:
        DataError: the shape is unknown or does not fit, or the values don't fill it.
    """
    where = f"data.inputs.{tensor.name}"
    values = np.asarray(spec.constant)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}.constant is neither a number nor a regular list of numbers.")
    shape = spec.shape
    if shape is None:
        shape = values.shape if values.ndim else tuple(d for d in tensor.shape if isinstance(d, int))
    if not fits(shape, tensor.shape):
        wanted = ", ".join("?" if d is None else str(d) for d in tensor.shape)
        raise DataError(
            f"{where} is a constant of shape {list(shape)}, but the model's input is [{wanted}].",
            f"Give {where}.shape with {len(tensor.shape)} dimensions.",
        )
    if values.ndim and values.size != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{where}.constant has {values.size} values, its shape {list(shape)} takes another number.")
    target = np.dtype(tensor.dtype)
    if target.kind in "iu" and np.any(values.astype(target) != values):
        raise DataError(f"{where}.constant does not fit the type {tensor.dtype}.")
    varying = any(not isinstance(d, int) for d in tensor.shape)
    return InputMap(
        tensor.name, tensor.dtype, shared=True, varying=varying, shape=tuple(shape), constant=values.tolist()
    )
