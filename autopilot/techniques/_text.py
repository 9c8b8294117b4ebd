"""Messages of other libraries, cut to what a user can read."""

from __future__ import annotations


def first_line(exc: BaseException) -> str:
    """The first non-empty line of a message, without the long tails some libraries add."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]
