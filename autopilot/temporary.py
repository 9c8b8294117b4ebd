"""Temporary folders that are removed even where the process that made them was not let to.

A folder is locked for as long as its process lives; its name says on which host that is. The kernel lets go of
the lock however the process ends (SIGKILL, a power cut), and needs neither a number of a process, which is used
again, nor a time: what can be locked is of the dead. ``sweep`` removes that, at the next start of a study.
A lock on the folder itself also keeps systemd-tmpfiles from ageing it (tmpfiles.d(5)).

They are in the system's temporary folder, or in one of the caller's where what is made is to be renamed into place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from autopilot.cache.lease import lock_descriptor

PREFIX = "autopilot-"
# Stands for the host where the file system has no locks: never swept, since nothing tells whether its owner lives.
UNLOCKED = "unlocked"
# What tempfile.mkdtemp ends a name with.
_END = "[a-z0-9_]{8}"
_MACHINE_ID = Path("/etc/machine-id")
# A sweep may come between making and locking; that it does so several times means something else, such as no locks.
_TRIES = 3


class TemporaryFolder:
    """A folder of this process; a context manager that gives its path. Made by ``temporary_folder``."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._finalizer = weakref.finalize(self, _remove, path, descriptor)

    def close(self) -> None:
        """Remove the folder; safe to call again."""
        self._finalizer()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def temporary_folder(kind: str, parent: Path | None = None) -> TemporaryFolder:
    """A new empty folder ``autopilot-KIND-…`` in the system's temporary folder, readable by this user alone.

    With a ``parent``, which is there, it is in that instead, and may be renamed from there.

    Raises:
        OSError: it can't be made.
    """
    for _ in range(_TRIES):
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-{host()}-", dir=parent))
        with contextlib.suppress(OSError):
            if (descriptor := _lock(path)) is not None:
                return TemporaryFolder(path, descriptor)
        with contextlib.suppress(OSError):
            path.rmdir()
    return TemporaryFolder(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-{UNLOCKED}-", dir=parent)), None)


def sweep(parent: Path | None = None, *, older: str = "") -> int:
    """Remove the folders of this user that dead processes of this host left behind; how many there were.

    ``parent``: where they were made, when that isn't the system's temporary folder. ``older``: how the names began,
    as a regular expression, that versions without locks gave to theirs; for a folder that only one run uses at a time.

    Stays silent where something can't be read or removed: it is nothing that the user asked for.
    """
    with contextlib.suppress(OSError):
        folder = os.open(parent or tempfile.gettempdir(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sum(_swept(folder, name) for name in _ours(folder, older))
        finally:
            os.close(folder)
    return 0


def host() -> str:
    """8 hex digits for this machine, which no other one has that shares its temporary folder.

    The machine's id alone is the same in copies of one image, the name alone is often "localhost".
    """
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return hashlib.sha256(f"{platform.node()}\n{machine}".encode()).hexdigest()[:8]


def _ours(parent: int, older: str) -> Iterator[str]:
    """Names under ``parent`` that this host made."""
    names = f"{PREFIX}[a-z0-9-]+-{host()}-" + (f"|{older}" if older else "")
    pattern = re.compile(f"(?:{names}){_END}")
    return (name for name in os.listdir(parent) if pattern.fullmatch(name))


def _swept(parent: int, name: str) -> bool:
    """Whether ``name`` under ``parent`` was a dead process's folder, and is gone."""
    with contextlib.suppress(OSError):
        descriptor = _lock(name, parent=parent)
        if descriptor is None:
            return False
        try:
            # Follows no links, and nobody else removes it or makes one of this name while the lock is held.
            shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
            return not _is_there(parent, name)
        finally:
            os.close(descriptor)
    return False


def _lock(path: Path | str, *, parent: int | None = None) -> int | None:
    """An open, locked descriptor of a folder; None where it is somebody else's, or is locked or gone by now.

    Raises:
        OSError: it is no folder (a link to one is none), it can't be opened, or there are no locks.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and lock_descriptor(descriptor, exclusive=True):
            with contextlib.suppress(FileNotFoundError):  # whoever had the lock before has removed it
                if os.path.samestat(found, os.stat(path, dir_fd=parent, follow_symlinks=False)):
                    kept, descriptor = descriptor, -1
                    return kept
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _is_there(parent: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=parent, follow_symlinks=False)
        return True
    return False


def _remove(path: Path, descriptor: int | None) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if descriptor is not None:
        os.close(descriptor)
