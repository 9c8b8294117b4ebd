"""Answers that are kept to be compared with those of other runs: few values of each, however large they are.

They are kept in the serving process too, whose memory is read: numpy and the standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopilot.contracts import Array

# Of one sample's answer: all of what is told by rows (the best 300 boxes with ten classes), and enough of a picture.
# 32 samples of 21 x 512 x 512 would be 700 MB, as much again for another size, and four times that to compare them.
MOST_VALUES = 8192
NUMBERS = "fiub"  # numpy's kinds of types


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to the first samples by output: shape (samples, …); of large ones every so-many-th value, (samples, k).

    ``shapes``: of one sample's whole answer. Text is left out, and outputs whose samples have several shapes.
    """

    values: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, runs: Iterable[Mapping[str, Array]]) -> Answers:
        """Of one run after the other, samples first; none of the arrays themselves is kept."""
        import numpy as np

        parts: dict[str, list[Array]] = {}
        shapes: dict[str, set[tuple[int, ...]]] = {}
        for outputs in runs:
            for name, value in outputs.items():
                if value.dtype.kind in NUMBERS:
                    parts.setdefault(name, []).append(thinned(value))
                    shapes.setdefault(name, set()).add(value.shape[1:])
        same = {name: found for name, (found, *others) in shapes.items() if not others}
        return cls({name: np.concatenate(parts[name]) for name in same}, same)

    def beside(self, other: Answers, samples: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """The first ``samples`` of both, of the outputs that have one shape in both."""
        names = [name for name, shape in self.shapes.items() if other.shapes.get(name) == shape]
        mine, theirs = ({name: a.values[name][:samples] for name in names} for a in (self, other))
        return mine, theirs


def thinned(values: Array) -> Array:
    """A copy of ``values``, shape (samples, …), or of at most ``MOST_VALUES`` of each sample, shape (samples, k).

    >>> import numpy as np
    >>> thinned(np.zeros((2, 3, 100, 100))).shape
    (2, 4286)
    """
    size = math.prod(values.shape[1:])
    if size <= MOST_VALUES:
        return values.copy()
    # No divisor of any length: else some channels would be passed over.
    step = next(k for k in count(math.ceil(size / MOST_VALUES)) if math.gcd(k, size) == 1)
    return values.reshape(len(values), size)[:, ::step].copy()
