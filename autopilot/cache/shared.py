"""The cache as one run uses it: its folder, its lease, its limit; the run's own folder where there is no other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autopilot.cache.compiled import back_in_use, instead_of
from autopilot.cache.eviction import trim
from autopilot.cache.folder import DIR_VARIABLE, CacheFolder, cache_folder, make_folder, size_limit
from autopilot.cache.lease import Lease

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SharedCache:
    """What a run reads and writes; ``lease`` and ``limit_bytes`` are None for a folder of its own."""

    folder: CacheFolder
    lease: Lease | None = None
    limit_bytes: int | None = None

    @classmethod
    def open(cls, own: Path, note: Note) -> SharedCache:
        """The cache of all runs; the folder ``own``, with a note, where that can't be written or locked.

        Raises:
            BadInput: the folder or the size that the environment names is wrong.
        """
        root = cache_folder()
        limit = size_limit(root)
        try:
            folder = make_folder(root)
            lease = Lease.hold(root)
        except OSError as exc:
            note(
                f"the cache {root} can't be used ({exc.strerror or exc}): what is built is kept for this run alone, "
                f"in its own folder; {DIR_VARIABLE} names another one"
            )
            instead_of(root, own.absolute())
            return cls(CacheFolder(own.absolute()))
        back_in_use()
        found = cls(folder, lease, limit)
        found.tidy()
        return found

    def tidy(self) -> None:
        """Keep to the limit; trouble with that can wait, since nothing is lost by it."""
        if self.limit_bytes is not None:
            with contextlib.suppress(OSError):
                trim(self.folder.root, self.limit_bytes)

    def close(self) -> None:
        """Let go of what this run used, and keep to the limit without it."""
        if self.lease is not None:
            self.lease.close()
            self.tidy()
