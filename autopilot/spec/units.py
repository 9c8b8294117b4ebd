"""Durations as people write them, and back."""

from __future__ import annotations

import math
import re
from typing import Any

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}\s*d)?\s*(?:{_NUMBER}\s*h)?\s*(?:{_NUMBER}\s*m)?\s*(?:{_NUMBER}\s*s?)?", re.ASCII)


def parse_duration(raw: Any) -> float:
    """Seconds in ``15m``, ``90s``, ``1h30m``, ``90``; always above zero.

    Raises:
        ValueError: anything else; the message is a plain sentence.

    >>> parse_duration("1h30m")
    5400.0
    """
    text = str(raw).strip().lower() if isinstance(raw, (int, float, str)) and not isinstance(raw, bool) else ""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{raw!r} is no duration; write 15m, 90s, 1h30m or a number of seconds")
    parts = zip(match.groups(), _UNITS_S.values(), strict=True)
    seconds = sum(float(amount) * unit for amount, unit in parts if amount)
    if not 0 < seconds < math.inf:
        raise ValueError(f"a duration of {raw!r} leaves no time; write 15m, 90s, 1h30m or a number of seconds")
    return seconds


def format_duration(seconds: float) -> str:
    """``seconds`` to whole seconds, as ``parse_duration`` reads it.

    >>> format_duration(5400.2)
    '1h30m'
    """
    left = max(0, round(seconds))
    words = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount:
            words.append(f"{amount}{unit}")
    return "".join(words) or "0s"
