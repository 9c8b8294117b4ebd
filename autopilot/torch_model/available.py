"""Whether the extra ``torch`` is installed, found out without importing it."""

from __future__ import annotations

from importlib.util import find_spec

INSTALL = (
    "Install the extra, from a clone: pip install -c constraints.txt '.[torch]' (with no constraints, pip on Linux"
    " takes a CUDA build of several GB)."
)


def missing(*modules: str) -> str | None:
    """A sentence naming the first of ``modules`` (default: torch) that isn't installed; None when all are."""
    for name in modules or ("torch",):
        if find_spec(name) is None:
            return f"{name.replace('_', '-')} is not installed."
    return None
