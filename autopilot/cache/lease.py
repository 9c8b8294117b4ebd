"""Who uses what: a process that holds a lease keeps the entries it has named.

A lease is a file, locked for as long as its process lives, that lists names of entries, one a line. The
kernel lets go of the lock however the process ends, so that nothing is kept for the dead. One descriptor a
process, however many entries. What is removed is renamed first, under the cache's own lock; who uses an
entry names it first, under the same lock shared, and looks for it after that: it finds the whole entry, which
is then safe, or none.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autopilot.cache.entries import Entry, Kind
from autopilot.cache.folder import CacheFolder
from autopilot.errors import AutopilotError

# Holders of the cache's lock do a few renames; one that is stopped must not stop everybody else for ever.
PATIENCE_S = 30.0
_PAUSE_S = 0.005
# Times of files are those of the kernel's last tick, and a lease's own is told to the second.
_CLOCKS_S = 1.0


def lock_descriptor(descriptor: int, *, exclusive: bool) -> bool:
    """Take a lock that ends with the open file; False where somebody else's is in the way.

    Raises:
        OSError: the system or the file system has no such locks.
    """
    try:
        import fcntl
    except ImportError as exc:  # Windows
        raise OSError("this system has no file locks") from exc
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(root: Path, *, exclusive: bool, patience_s: float) -> Iterator[bool]:
    """The cache's own lock while the block runs; False where it wasn't to be had in ``patience_s`` seconds.

    Raises:
        OSError: the lock file can't be opened.
    """
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + patience_s
        while not (got := lock_descriptor(descriptor, exclusive=exclusive)) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        yield got
    finally:
        os.close(descriptor)


class Lease:
    """What one process, and its children for it, uses of the cache under ``root``."""

    def __init__(self, root: Path, path: Path, descriptor: int | None) -> None:
        self.root = root
        self.path = path
        self._descriptor = descriptor
        self._named: set[str] = set()

    @classmethod
    def hold(cls, root: Path, *, names_only: bool = False) -> Lease:
        """A new lease of this process; with ``names_only`` of nothing but what it names.

        A run keeps as well what was used since it began, by whomever. A process that serves for months must not.

        Raises:
            OSError: the folder can't be written, or has no locks.
        """
        begun = "inf" if names_only else f"{time.time():.0f}"  # a number, which ``held`` reads
        path = CacheFolder(root).leases / f"{begun}-{os.getpid()}-{uuid.uuid4().hex}"
        path.parent.mkdir(exist_ok=True)
        with _shared(root):  # a lease that is there but not locked yet would count as a dead process's
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            lock_descriptor(descriptor, exclusive=True)
        return cls(root, path, descriptor)

    @classmethod
    def join(cls, root: Path, path: Path) -> Lease:
        """The lease of the parent, who holds the lock, for a child that names what it takes."""
        return cls(root, path, None)

    def pin(self, name: str) -> None:
        """Keep the entry called ``name`` until this lease ends, whether it is there yet or not.

        Raises:
            OSError: the lease can't be written.
        """
        if name in self._named:
            return
        with _shared(self.root):
            descriptor = self._descriptor
            if descriptor is None:
                descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, f"{name}\n".encode())
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        self._named.add(name)

    def close(self) -> None:
        """Give back what was held; the file goes with it."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def _shared(root: Path) -> Iterator[None]:
    with locked(root, exclusive=False, patience_s=PATIENCE_S) as got:
        if not got:
            raise AutopilotError(
                f"{root / 'lock'} has been held for {PATIENCE_S:g} s.",
                "Is an `autopilot cache clear` stopped there? End it; the same command goes on.",
            )
        yield


@dataclass(frozen=True, slots=True)
class Held:
    """What living processes use: the entries they have named, and the tables and scores used ``since_s``.

    These are read whole and at once, so that removing one harms nobody; but a run that reads a table for each
    of its builds should not have to make it as often. So do kernels and engines that were taken since then: a process
    that serves may still read and write there. ``since_s``: when the oldest of the processes
    began, seconds since the epoch; infinite where all hold but what they have named.
    """

    names: frozenset[str] = frozenset()
    since_s: float = math.inf

    def __contains__(self, entry: Entry) -> bool:
        small = entry.kind in (Kind.SCRATCH, Kind.QUALITY, Kind.COMPILED) and entry.used_s >= self.since_s - _CLOCKS_S
        return small or entry.name in self.names


def held(root: Path) -> Held:
    """What living processes use; leases of dead ones are removed.

    To be called with the cache's lock held exclusively: nobody names anything meanwhile, and a lease that is
    being made isn't taken for a dead process's.
    """
    names: set[str] = set()
    since_s = math.inf
    for path in CacheFolder(root).leases.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # it ended just now
            descriptor = os.open(path, os.O_RDWR)
            try:
                if lock_descriptor(descriptor, exclusive=True):
                    path.unlink(missing_ok=True)
                else:
                    names.update(path.read_text(encoding="utf-8").split())
                    since_s = min(since_s, float(path.name.partition("-")[0]))
            finally:
                os.close(descriptor)
    return Held(frozenset(names), since_s)
