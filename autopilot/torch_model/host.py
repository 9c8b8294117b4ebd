"""Arithmetic on shapes at run time: whole numbers and lists of them, never tensors.

ONNX computes shapes as int64 tensors. As tensors they would end every trace (``torch.export`` can't
reshape by a tensor's values); as Python numbers they stay symbolic. A 0-d tensor is an int here, a
1-d one a list.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

Host = Any  # int | list[int]; under torch.export the ints are symbols


def sizes(x: Any, start: int = 0, end: int | None = None) -> list[int]:
    """Shape."""
    return list(x.shape)[start:end]


def size(x: Any) -> int:
    """Size."""
    return int(math.prod(x.shape))


def gather(data: Sequence[int], index: Host) -> Host:
    """Gather along the only axis."""
    return [data[i] for i in index] if isinstance(index, (list, tuple)) else data[index]


def concat(*parts: Sequence[int]) -> list[int]:
    """Concat."""
    return [value for part in parts for value in part]


def take(data: Sequence[int], start: int, end: int, step: int = 1) -> list[int]:
    """Slice along the only axis; ONNX writes "to the end" as a very large number."""
    return list(data)[start:end:step]


def unsqueeze(data: Host) -> list[int]:
    """Unsqueeze, or Reshape to one dimension."""
    return list(data) if isinstance(data, (list, tuple)) else [data]


def squeeze(data: Host) -> Host:
    """Squeeze, or Reshape to none."""
    return data[0] if isinstance(data, (list, tuple)) else data


def same(data: Host) -> Host:
    """Identity, or a cast between whole numbers."""
    return data


def product(data: Host) -> int:
    """ReduceProd."""
    result = 1
    for value in unsqueeze(data):
        result = result * value
    return result


def _quotient(a: int, b: int) -> int:
    # ONNX cuts toward zero; sizes are never negative, and // keeps symbols symbolic.
    return a // b


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": _quotient,
    "Mod": operator.mod,
    "Equal": operator.eq,
    "Max": max,
    "Min": min,
}


def binary(op: str, a: Host, b: Host) -> Host:
    """An elementwise operator, one number spread over a list."""
    function = _BINARY[op]
    lists = [x for x in (a, b) if isinstance(x, (list, tuple))]
    if not lists:
        return function(a, b)
    length = max(len(x) for x in lists)
    left, right = (list(x) if isinstance(x, (list, tuple)) else [x] for x in (a, b))
    left, right = (x * length if len(x) == 1 else x for x in (left, right))
    return [function(x, y) for x, y in zip(left, right, strict=True)]


def where(condition: Host, a: Host, b: Host) -> Host:
    """Where on shapes."""
    if not isinstance(condition, (list, tuple)):
        return a if condition else b
    spread = [x if isinstance(x, (list, tuple)) else [x] * len(condition) for x in (a, b)]
    return [x if c else y for c, x, y in zip(condition, *spread, strict=True)]


def tensor(data: Host, *, device: str | None = None) -> Any:
    """A shape that is used as numbers after all: an int64 tensor."""
    import torch

    if isinstance(data, (list, tuple)):
        numbers = [torch.scalar_tensor(x, dtype=torch.int64, device=device) for x in data]
        return torch.stack(numbers) if numbers else torch.zeros(0, dtype=torch.int64, device=device)
    return torch.scalar_tensor(data, dtype=torch.int64, device=device)


BINARY = frozenset(_BINARY)
