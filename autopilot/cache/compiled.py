"""Where runtimes keep what they compiled for a model: kernels of inductor, engines of TensorRT.

They write there by themselves, so that nothing in it is sealed; but it is listed, limited and cleared with the rest.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.cache.folder import DIR_VARIABLE, CacheFolder, cache_folder, make_folder
from autopilot.cache.sealed import used
from autopilot.errors import AutopilotError, BadInput

if TYPE_CHECKING:
    from autopilot.cache.lease import Lease
    from autopilot.temporary import TemporaryFolder

# How a run tells its children that it keeps to its own folder: which cache can't be used, and what takes its place.
_VARIABLE = "AUTOPILOT_CACHE_INSTEAD"


class Keeper:
    """Keeps in the cache what a process that serves by itself has taken; made by ``keeping``.

    A run's servers need none: their run has a lease.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lease: Lease | None = None

    def take(self, root: Path, key: str) -> None:
        """Keep the entry ``key`` of the cache ``root`` until this is closed, or the process ends.

        Where that can't be done the process serves all the same; the entry may then go while it does. In another folder
        than the cache's there is nobody that would remove it.
        """
        from autopilot.cache.lease import Lease

        with contextlib.suppress(OSError, AutopilotError):
            if root != cache_folder():
                return
            if self._lease is None:
                self._lease = Lease.hold(root, names_only=True)
            self._lease.pin(key)

    def close(self) -> None:
        """Give it back; safe to call again, and in a fork of the process, which leaves it to that."""
        if self._lease is not None and os.getpid() == self._owner:
            self._lease.close()
            self._lease = None


_KEEPER: ContextVar[Keeper | None] = ContextVar("keeper", default=None)


@contextlib.contextmanager
def keeping() -> Iterator[Keeper]:
    """A keeper of all that the block takes from the cache; closed only where the block raises."""
    keeper = Keeper()
    token = _KEEPER.set(keeper)
    try:
        with contextlib.ExitStack() as unless_loaded:
            unless_loaded.callback(keeper.close)
            yield keeper
            unless_loaded.pop_all()
    finally:
        _KEEPER.reset(token)


def instead_of(root: Path, own: Path) -> None:
    """Have this process and those that it starts keep in ``own`` what they would keep in the cache ``root``."""
    os.environ[_VARIABLE] = f"{root}{os.pathsep}{own}"


def back_in_use() -> None:
    """Have this process and those that it starts keep in the cache what an earlier run of this process could not."""
    os.environ.pop(_VARIABLE, None)


def compiled(kind: str) -> Path:
    """A folder that can be written, with a folder in it for each thing of ``kind`` that was compiled.

    In the cache that runs share; where that can't be used, in the folder of the run, else in one of this process.

    Raises:
        BadInput: the cache's folder holds something else, or the environment names none that can be.
    """
    try:
        root = cache_folder()
    except BadInput:  # no home folder, as in containers of any user: no run begins there, but winners are served
        if os.environ.get(DIR_VARIABLE):
            raise
        return _writable(_temporary().path / kind)
    unusable, _, own = os.environ.get(_VARIABLE, "").partition(os.pathsep)
    try:
        found = CacheFolder(Path(own)) if own and unusable == str(root) else make_folder(root)
        return _writable(found.compiled / kind)
    except OSError:  # of a process that no run started: it serves, and compiles again at its next start
        return _writable(_temporary().path / kind)


def compiled_for(kind: Path, key: str) -> Path:
    """The folder of what was, or will be, compiled under ``key`` in ``kind``; noted as used now."""
    folder = kind / key
    if keeper := _KEEPER.get():
        keeper.take(kind.parent.parent, key)  # first: what is there and not named may be removed
    folder.mkdir(parents=True, exist_ok=True)
    used(folder)
    return folder


def _writable(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} can't be written")
    return folder


@cache
def _temporary() -> TemporaryFolder:
    """Removed when this process ends."""
    from autopilot.temporary import temporary_folder

    return temporary_folder("compiled")
