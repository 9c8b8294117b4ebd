"""The memory limit of a child process, in force before the libraries load. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def limit_memory(memory_bytes: int) -> None:
    """Bound heap and private writable mappings; file mappings (weights, shared libraries) stay free.

    RLIMIT_DATA covers anonymous mappings on Linux only; elsewhere there is no limit that does not
    also forbid mapping shared libraries, so none is set.
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    _load_libraries_whole(soft, hard)


def _load_libraries_whole(soft: int, hard: int) -> None:
    """Lift the limit while a compiled module loads; a process that is beyond it after that ends, with MemoryError said.

    Few initialisers of libraries look whether they got their memory: ONNX Runtime 1.32's end in SIGSEGV or SIGABRT
    under one limit and in MemoryError under the next, and a crash would be told where memory ran out. It isn't
    raised, since packages catch what the import of their compiled part raises, and go on half loaded.
    """
    import resource
    from importlib.machinery import ExtensionFileLoader

    loading = 0  # one module's initialiser imports others

    def unlimited(load: Callable[..., Any]) -> Callable[..., Any]:
        def loaded(*args: Any) -> Any:
            nonlocal loading
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
            loading += 1
            try:
                return load(*args)
            finally:
                loading -= 1
                if not loading:
                    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
                    _end_beyond(soft, "the library of " + str(getattr(args[1], "__name__", None) or args[1].name))

        return loaded

    ExtensionFileLoader.create_module = unlimited(ExtensionFileLoader.create_module)  # type: ignore[method-assign]
    ExtensionFileLoader.exec_module = unlimited(ExtensionFileLoader.exec_module)  # type: ignore[method-assign]


def _end_beyond(soft: int, loaded: str) -> None:
    taken = _data_bytes()
    if taken <= soft:
        return
    sys.stdout.flush()
    told = f"MemoryError: with {loaded} loaded, {taken / 1e6:.0f} MB of {soft / 1e6:.0f} MB are taken"
    print(told, file=sys.stderr, flush=True)
    os._exit(1)


def _data_bytes() -> int:
    """What RLIMIT_DATA counts of this process: VmData."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
