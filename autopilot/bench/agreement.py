"""Whether one model's answers in runs of different sizes are the same answers: numpy and the standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autopilot.bench.answers import NUMBERS, Answers
from autopilot.errors import Failure, VariantFailed

if TYPE_CHECKING:
    from autopilot.contracts import Array

# Answers that are farther apart are others. Of what is honest, dynamic int8 is the farthest, since its scale is taken
# over a whole run: 0.055 on an encoder of 6 layers and 0.004 on a CNN, sizes 1 to 8 against 16; float32, bfloat16,
# static int8 and 4-bit weights were below 0.00001. Answers to other questions are at 1.4, wrong scales anywhere above.
FAR = 0.25
# Fewer values than this have no spread to go by.
_FEW = 32
# One honest flip among fewer whole numbers would be too many, and all of fewer floats may lie so near 0 that rounding
# is more than they are (dynamic int8 with one figure a sample: 1 of 40 small networks). Garbage is by far more.
_FEWEST = 8
_GARBAGE = 1000
# Of the largest value: where all values are nearly one, their spread is less than bfloat16 rounds (0.4%).
_LEAST_SPREAD = 0.02
# Rows that only changed places are as near as this when ordered by value, and so is what they were ordered by as it is.
# The best 100 of 1,000 boxes with noise of 0.4% in the scores: 0.03 and 0.06; those of other samples: 0.19 and 0.36.
_SAME_ROWS = 0.1


def distance(a: Array, b: Array) -> float:
    """How far ``a`` is from ``b``, of one shape: 0 the same, 1 as far as the values of ``b`` are from their mean.

    The root mean square of the difference by the spread of ``b`` (few values: by the largest); for whole numbers, which
    may be names or quantities, at most the share of values that differ. 0 for less than eight values, but for floats a
    thousand times as large; infinite for these and where other values are NaN or infinite.

    >>> import numpy as np
    >>> distance(np.array([1, 2, 3, 4, 5, 6, 7, 8]), np.array([1, 2, 3, 4, 5, 6, 7, 80]))
    0.125
    """
    import numpy as np

    if a.dtype.kind != "f":
        return min(float(np.mean(a != b)), _by_spread(a, b)) if a.size >= _FEWEST else 0.0
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return float("inf")
    if a.size < _FEWEST:
        return float("inf") if _is_garbage(a[finite], b[finite]) else 0.0
    return _by_spread(a[finite], b[finite])


def _by_spread(a: Array, b: Array) -> float:
    import numpy as np

    x, y = (values.astype(np.float64) for values in (a, b))
    if not y.size:
        return 0.0
    largest = float(np.abs(y).max())
    scale = largest if y.size < _FEW else max(float(y.std()), _LEAST_SPREAD * largest)
    with np.errstate(over="ignore"):
        apart = float(np.sqrt(np.mean((x - y) ** 2)))
    return apart / scale if scale else (float("inf") if apart else 0.0)


def _is_garbage(a: Array, b: Array) -> bool:
    """Whether the largest of one is by far more than that of the other; 0 is no measure of anything."""
    import numpy as np

    least, most = sorted(float(np.abs(x).max(initial=0.0)) for x in (a, b))
    return most > _GARBAGE * least > 0


def check_agreement(
    found: Mapping[str, Array], wanted: Mapping[str, Array], sizes: Sequence[int], scored: str | None = None
) -> None:
    """Refuse answers to the same samples that depend on how many are run at once.

    ``found`` and ``wanted``: outputs by name, shape (samples, …), of runs of ``sizes[0]`` and ``sizes[1]`` samples;
    outputs of other shapes (padded to the longest of a run) and text are left out. ``scored``: the one that counts;
    without it one that agrees and isn't the same everywhere speaks for all. Rows that near ties order otherwise agree.

    Raises:
        VariantFailed: WRONG_NUMERICS.
    """
    pairs = {
        name: (found[name], b)
        for name, b in wanted.items()
        if name in found and found[name].shape == b.shape and b.dtype.kind in NUMBERS
    }
    apart = {name: distance(*pair) for name, pair in pairs.items()}
    if scored not in apart and any(apart[name] <= FAR and _varies(b) for name, (_, b) in pairs.items()):
        return
    for name in [scored] if scored in apart else list(apart):
        if name is None or apart[name] <= FAR or _reordered(name, pairs):
            continue
        raise VariantFailed(
            Failure.WRONG_NUMERICS,
            f"its output {name!r} in runs of {sizes[0]} samples isn't what runs of {sizes[1]} give for the same "
            f"samples: {apart[name]:.3g} of its spread apart, where {FAR} is the most.",
            "The runtime computes one of the two wrongly; take another provider, technique or batch size.",
        )


def _varies(values: Array) -> bool:
    """Whether ``values`` are neither few nor nearly one constant, which agree whatever was computed."""
    import numpy as np

    known = values[np.isfinite(values)].astype(np.float64)
    return bool(known.size >= _FEWEST and known.std() > _LEAST_SPREAD * np.abs(known).max())


def _reordered(name: str, pairs: Mapping[str, tuple[Array, Array]]) -> bool:
    """Whether the rows of a sample only changed places, as those of a TopK or NMS do where scores nearly tie.

    In order its values are near then, and something that was ordered by stays near as it is: another output, or one
    column of this.
    """
    import numpy as np

    a, b = pairs[name]
    if a.ndim < 2 or (a.ndim == 2 and a.dtype.kind == "f"):  # scores of classes have no rows
        return False
    if distance(np.sort(a, axis=1), np.sort(b, axis=1)) > _SAME_ROWS:
        return False
    columns = [(a[..., i], b[..., i]) for i in range(a.shape[-1])] if a.ndim > 2 else []
    others = [pair for other, pair in pairs.items() if other != name]
    return any(_varies(y) and distance(x, y) <= _SAME_ROWS for x, y in (*others, *columns))


class FirstRuns:
    """Compares each size that a server runs for the first time with the one before it, on the samples of both."""

    def __init__(self, names: Sequence[str], scored: str | None = None) -> None:
        """``scored``: the one of the outputs ``names`` that counts; "" is the first, None is not known."""
        self._names = tuple(names)
        self._scored = self._names[0] if scored == "" else scored
        self._size = 0
        self._answers = Answers({}, {})

    def add(self, size: int, outputs: Sequence[Array]) -> None:
        """``outputs``: of a run of the first ``size`` samples; those that don't follow it are left out.

        Runs of one size (in the next instance) aren't compared: where answers differ from run to run, as those of a
        model that samples, one size alone is served.

        Raises:
            VariantFailed: WRONG_NUMERICS.
        """
        import numpy as np

        named = dict(zip(self._names, outputs, strict=True))
        arrays = {name: v for name, v in named.items() if isinstance(v, np.ndarray)}  # no sequences
        found = Answers.of([{name: v for name, v in arrays.items() if v.ndim and v.shape[0] == size}])
        both = min(size, self._size)
        if both and size != self._size:
            check_agreement(*found.beside(self._answers, both), (size, self._size), self._scored)
        self._size, self._answers = size, found
