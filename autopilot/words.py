"""Counts with their nouns, and shares, as people say them. Pure."""

from __future__ import annotations

import math

DASH = "–"
# No share that anybody reads has more places; what is smaller is 0.
_PLACES = 9


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun, in the right form.

    >>> counted(1, "trial"), counted(1200, "trial"), counted(0, "entry", "entries")
    ('1 trial', '1,200 trials', '0 entries')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def percent(share: float | None, digits: int = 3) -> str:
    """A share as a percentage with so many digits that count; never with an exponent.

    >>> percent(0.3572), percent(7.2, 2), percent(0.0000031), percent(None)
    ('35.7%', '720%', '0.00031%', '–')
    """
    if share is None or math.isnan(share):
        return DASH
    if math.isinf(share):
        return "∞" if share > 0 else "-∞"
    rounded = f"{float(f'{share * 100:.{digits}g}'):,.{_PLACES}f}".rstrip("0").rstrip(".")
    return f"{'0' if rounded == '-0' else rounded}%"


def times(low: float | None, high: float | None, between: str = "..") -> str:
    """The bounds of a factor with two decimals; a factor is above 0, so that a low bound of 0 is none.

    >>> times(2.818, 2.871), times(0.0, float("inf")), times(1.5, None)
    ('2.82..2.87', 'no bounds', '1.50 or more')
    """
    has_low = low is not None and low > 0
    has_high = high is not None and math.isfinite(high)
    if has_low and has_high:
        return f"{low:.2f}{between}{high:.2f}"
    if has_low:
        return f"{low:.2f} or more"
    return f"{high:.2f} or less" if has_high else "no bounds"
