"""What a space's file says under ``deployment``: thread counts, batches, delays and instances. Pure."""

from __future__ import annotations

import math
from typing import Any

from autopilot.errors import SpecError

# Waiting for a batch to fill, in milliseconds: none, and what a request of some milliseconds can spare.
DELAYS_MS = (0.0, 1.0, 2.0, 5.0)


def threads(wanted: Any, most: int, where: str) -> tuple[int, ...]:
    """Thread counts to try, the target's own first: it is the default deployment's.

    Raises:
        SpecError: ``wanted`` is no list of counts.
    """
    if wanted == "auto":
        powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
        return (most, *reversed(powers))
    counts = _counts(wanted, f"{where}: deployment.threads should be auto or a list of counts")
    return tuple(sorted((v for v in counts if v <= most), reverse=True)) or (most,)


def batches(wanted: Any, allowed: tuple[int, ...], where: str) -> tuple[int, ...]:
    """Batch sizes to try, ascending; ``allowed`` are those of the spec.

    Raises:
        SpecError: ``wanted`` is no list of counts.
    """
    if wanted is None:
        return allowed
    counts = _counts(wanted, f"{where}: deployment.batch should be a list of batch sizes")
    return allowed if len(allowed) == 1 else tuple(sorted(counts))


def _counts(wanted: Any, right: str) -> set[int]:
    values = wanted if isinstance(wanted, list) else [wanted]
    if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values):
        raise SpecError(f"{right}, not {wanted!r}.")
    return set(values)


def delays_ms(wanted: Any, where: str) -> tuple[float, ...]:
    """How long the oldest waiting request may wait for others, in milliseconds, ascending.

    Raises:
        SpecError: ``wanted`` is no list of milliseconds.
    """
    if wanted is None:
        return DELAYS_MS
    values = wanted if isinstance(wanted, list) else [wanted]
    good = all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v < math.inf for v in values)
    if not values or not good:
        raise SpecError(f"{where}: deployment.max_delay_ms should be a list of milliseconds, not {wanted!r}.")
    return tuple(sorted({float(v) for v in values}))


def instances(wanted: Any, most: int, where: str) -> tuple[int, ...]:
    """Copies of the model in one server, ascending.

    Raises:
        SpecError: ``wanted`` is no list of counts.
    """
    if wanted == "auto":
        return tuple(1 << i for i in range(most.bit_length()))
    return tuple(sorted(_counts(wanted, f"{where}: deployment.instances should be auto or a list of counts")))
