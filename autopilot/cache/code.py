"""A digest of code, for keys of what it made: a version number alone is forgotten sooner or later."""

from __future__ import annotations

import hashlib
import importlib
import sys
from functools import cache
from pathlib import Path


@cache
def code_digest(*modules: str) -> str:
    """Hex sha256 of the source files of ``modules``; of a package all files in its folder.

    A module without a file (made up in a console, compiled) counts by its name alone. Some hundred
    kilobytes are read, once a process.
    """
    h = hashlib.sha256()
    for name in modules:
        file = getattr(sys.modules.get(name) or importlib.import_module(name), "__file__", None)
        path = Path(file) if file is not None else None
        files = [] if path is None else sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
        h.update(name.encode())
        for one in files:
            h.update(b"\0" + one.name.encode() + b"\0")
            h.update(one.read_bytes())
    return h.hexdigest()
