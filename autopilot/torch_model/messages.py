"""What torch says, cut to what a user can read."""

from __future__ import annotations

from collections.abc import Sequence


def first_line(exc: BaseException) -> str:
    """The first non-empty line of a message, at most 300 characters."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]


def root_line(exc: BaseException) -> str:
    """The first line of what an exception came of: torch's exporter itself begins with advice."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return first_line(exc)


def listed(names: Sequence[str], most: int = 3) -> str:
    """Some names and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
