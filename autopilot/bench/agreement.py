"""Whether one model's answers in runs of different sizes are the same answers: numpy and the standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autopilot.errors import Failure, VariantFailed

if TYPE_CHECKING:
    from autopilot.contracts import Array

# Answers that are farther apart are others. Of what is honest, dynamic int8 is the farthest, since its scale is taken
# over a whole run: 0.055 on an encoder of 6 layers and 0.004 on a CNN, sizes 1 to 8 against 16; float32, bfloat16,
# static int8 and 4-bit weights were below 0.00001. Answers to other questions are at 1.4, wrong scales anywhere above.
FAR = 0.25
# Fewer values than this have no spread to go by, and one honest flip among fewer whole numbers would be too many.
_FEW = 32
_FEW_WHOLE = 8
# Of the largest value: where all values are nearly one, their spread is less than bfloat16 rounds (0.4%).
_LEAST_SPREAD = 0.02
_NUMBERS = "fiub"  # numpy's kinds of types


def distance(a: Array, b: Array) -> float:
    """How far ``a`` is from ``b``, of one shape: 0 the same, 1 as far as the values of ``b`` are from their mean.

    For floats the root mean square of the difference by the spread of ``b`` (few values: by the largest); for whole
    numbers the share of values that differ, 0 for less than eight. Infinite where other values are NaN or infinite.

    >>> import numpy as np
    >>> distance(np.array([1, 2, 3, 4, 5, 6, 7, 8]), np.array([1, 2, 3, 4, 5, 6, 7, 9]))
    0.125
    """
    import numpy as np

    if a.dtype.kind != "f":
        return float(np.mean(a != b)) if a.size >= _FEW_WHOLE else 0.0
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return float("inf")
    x, y = (values[finite].astype(np.float64) for values in (a, b))
    if not y.size:
        return 0.0
    largest = float(np.abs(y).max())
    scale = largest if y.size < _FEW else max(float(y.std()), _LEAST_SPREAD * largest)
    with np.errstate(over="ignore"):
        apart = float(np.sqrt(np.mean((x - y) ** 2)))
    return apart / scale if scale else (float("inf") if apart else 0.0)


def check_agreement(found: Mapping[str, Array], wanted: Mapping[str, Array], sizes: Sequence[int]) -> None:
    """Refuse answers to the same samples that depend on how many are run at once.

    ``found`` and ``wanted``: outputs by name, shape (samples, …), of runs of ``sizes[0]`` and ``sizes[1]`` samples;
    outputs of other shapes (padded to the longest of a run) and text are left out.

    Raises:
        VariantFailed: WRONG_NUMERICS.
    """
    for name in found.keys() & wanted.keys():
        a, b = found[name], wanted[name]
        if a.shape != b.shape or a.dtype.kind not in _NUMBERS:
            continue
        apart = distance(a, b)
        if apart > FAR:
            raise VariantFailed(
                Failure.WRONG_NUMERICS,
                f"its output {name!r} in runs of {sizes[0]} samples isn't what runs of {sizes[1]} give for the same "
                f"samples: {apart:.3g} of its spread apart, where {FAR} is the most.",
                "The runtime computes one of the two wrongly; take another provider, technique or batch size.",
            )


class FirstRuns:
    """Compares each size that a server runs for the first time with the one before it, on the samples of both."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._size = 0
        self._answers: dict[str, Array] = {}

    def add(self, size: int, outputs: Sequence[Array]) -> None:
        """``outputs``: of a run of the first ``size`` samples; those that don't follow it are left out.

        Raises:
            VariantFailed: WRONG_NUMERICS.
        """
        import numpy as np

        named = dict(zip(self._names, outputs, strict=True))
        # Copies: a session whose memory is bound writes over it.
        arrays = {name: v for name, v in named.items() if isinstance(v, np.ndarray)}  # no sequences
        found = {name: v.copy() for name, v in arrays.items() if v.ndim and v.shape[0] == size}
        both = min(size, self._size)
        if both:
            now, before = ({name: v[:both] for name, v in answers.items()} for answers in (found, self._answers))
            check_agreement(now, before, (size, self._size))
        self._size, self._answers = size, found
