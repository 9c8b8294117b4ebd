"""Which cores a process may use, and which ones a server is bound to. Standard library only: the child loads it too."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def server_cores(threads: int) -> list[int]:
    """The cores a server of ``threads`` threads runs on: the last ones this process may use.

    The first ones stay the parent's where there are any to spare; servers that are compared share theirs.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[-threads:]


def pin(cores: list[int]) -> list[int]:
    """Bind this process (and threads it starts later) to ``cores``; returns the cores it really has."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        return []
    return sorted(os.sched_getaffinity(0))
