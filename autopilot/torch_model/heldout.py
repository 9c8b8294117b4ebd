"""A part of the training data that training never sees: what early stopping goes by. Pure.

No verdict rests on it: those rest on the validation and test data, which training and stopping never see.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from autopilot.data import Split

# One sample in ten, and at most so many: the standard error of an accuracy of 90 % is then below 0.7 points.
_ONE_IN, MOST = 10, 2000
# Of fewer training samples nothing is set aside: a handful decides nothing, and training lacks them.
FEWEST_SAMPLES = 200


def divide(split: Split) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices to train with and indices held out, both int64, ascending.

    A sample's own content decides, so that copies of it are on the same side.
    """
    everything = np.arange(split.n, dtype=np.int64)
    if split.n < FEWEST_SAMPLES:
        return everything, everything[:0]
    chosen = np.fromiter((_is_held_out(split, int(i)) for i in everything), bool, split.n)
    held_out = everything[chosen]
    # What is over the limit is left unused and not trained with: a copy of it may be held out.
    return everything[~chosen], held_out[:MOST]


def _is_held_out(split: Split, index: int) -> bool:
    h = hashlib.blake2b(digest_size=8)
    for name, value in sorted(split.raw([index]).items()):
        h.update(name.encode())
        h.update(np.ascontiguousarray(value).tobytes())
    return int.from_bytes(h.digest(), "little") % _ONE_IN == 0
