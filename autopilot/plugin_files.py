"""Plug-ins in single files, without a package: the files that ``AUTOPILOT_PLUGINS`` names, as modules.

An environment variable and not a list in this process: builds, servers and scorers are processes of
their own, and what they inherit is the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

from autopilot.errors import BadInput

VARIABLE = "AUTOPILOT_PLUGINS"
# What a file may declare; the names of ``contracts``.
DECLARATIONS = ("TECHNIQUE", "PROVIDER", "METER", "METRICS")
_PREFIX = "autopilot_plugin_"


def named_files() -> tuple[Path, ...]:
    """The files of the environment variable, in its order.

    Raises:
        BadInput: one is relative: each process of a study runs in another folder.
    """
    files = tuple(Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part)
    for file in files:
        if not file.is_absolute():
            raise BadInput(
                f"{VARIABLE} names {file}, which is not an absolute path.",
                f"Write {file.absolute()}: a study's processes run in other folders.",
            )
    return files


def name_file(file: Path) -> None:
    """Add ``file`` to the environment variable, once: this process and those that it starts have it."""
    if file not in named_files():
        os.environ[VARIABLE] = os.pathsep.join([*map(str, named_files()), str(file)])


def forget_file(file: Path) -> None:
    """Take ``file`` out of the environment variable again."""
    os.environ[VARIABLE] = os.pathsep.join(str(f) for f in named_files() if f != file)
    forget_module(file)


def forget_module(file: Path) -> None:
    """Let ``file`` be read anew by the next ``load_file``: it was edited."""
    known = sys.modules.get(_PREFIX + file.stem)
    if known is not None and Path(known.__file__ or "") == file:
        del sys.modules[_PREFIX + file.stem]


def load_file(file: Path) -> ModuleType:
    """The module of ``file``, read once a process; its code counts in keys of the caches as that of a package does.

    Raises:
        BadInput: it can't be read or run, it declares no plug-in, or another file has the same name.
    """
    name = _PREFIX + file.stem
    known = sys.modules.get(name)
    if known is not None:
        if Path(known.__file__ or "") != file:
            raise BadInput(f"two plug-in files are called {file.name}: {known.__file__} and {file}.", "Rename one.")
        return known
    if file.suffix != ".py" or not file.is_file():
        raise BadInput(f"{file} is no Python file.", f"Name files that end in .py, in {VARIABLE} by absolute paths.")
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module
    try:
        # Not by import: its bytecode cache takes two edits within a second for one.
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except Exception as exc:  # another's code: whatever it raises, the file is what has to be repaired
        del sys.modules[name]
        raise BadInput(f"the plug-in file {file} can't be run: {type(exc).__name__}: {exc}.", "Repair it.") from exc
    if not any(hasattr(module, d) for d in DECLARATIONS):
        del sys.modules[name]
        raise BadInput(f"{file} declares no plug-in.", f"It has to define one of {', '.join(DECLARATIONS)}.")
    return module
