"""Whether the extra ``torch`` is installed, found out without importing it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

INSTALL = (
    "Install the extra, from a clone: pip install -c constraints.txt -e '.[torch]' (with no constraints, pip on Linux"
    " takes a CUDA build of several GB)."
)


def missing(*modules: str) -> str | None:
    """A sentence naming the first of ``modules`` (default: torch) that isn't installed; None when all are."""
    for name in modules or ("torch",):
        if find_spec(name) is None:
            return f"{name.replace('_', '-')} is not installed."
    return None


# torch/version.py of a build without CUDA says None instead of a version in quotes.
_CUDA = re.compile(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", re.MULTILINE)


def cuda_version() -> str | None:
    """The CUDA that torch was built with; None for a build without, or no torch. Reads a file, imports nothing."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        found = _CUDA.search((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def torch_version() -> str:
    """The installed torch's version, "" where there is none."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
