"""What goes when the cache is full: what was used longest ago first, never what a living process uses."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autopilot.cache.entries import META, TRASH, Entry, Kind, is_being_written, leftovers, scan
from autopilot.cache.folder import CacheFolder
from autopilot.cache.lease import Held, held, locked

# Tidying can wait for the next build; a user who clears the cache expects an answer.
_TRIM_PATIENCE_S, _CLEAR_PATIENCE_S = 0.5, 10.0

Choice = Callable[[Sequence[Entry], Held], list[Entry]]


@dataclass(frozen=True, slots=True)
class Freed:
    """What was removed, and what was not since it is in use; ``busy``: another process was tidying up."""

    entries: int = 0
    size_bytes: int = 0
    kept_entries: int = 0
    kept_bytes: int = 0
    busy: bool = False


def oldest_first(entries: Iterable[Entry]) -> list[Entry]:
    """By last use; names decide between equals, so that the order is always the same."""
    return sorted(entries, key=lambda e: (e.used_s, e.name))


def over_limit(entries: Sequence[Entry], in_use: Held, limit_bytes: int, now_s: float) -> list[Entry]:
    """What has to go so that the rest fits ``limit_bytes``, and all that killed builds left; nothing in ``in_use``.

    What is in use counts, so that others go for it; when it alone is over the limit, all others go.
    """
    dead = [e for e in entries if e.kind is Kind.UNFINISHED and e not in in_use and not is_being_written(e, now_s)]
    going = set(dead)
    size = sum(e.size_bytes for e in entries) - sum(e.size_bytes for e in dead)
    for entry in oldest_first(e for e in entries if e.kind is not Kind.UNFINISHED and e not in in_use):
        if size <= limit_bytes:
            break
        going.add(entry)
        size -= entry.size_bytes
    return oldest_first(going)


def older_than(entries: Sequence[Entry], in_use: Held, before_s: float, now_s: float) -> list[Entry]:
    """What nobody uses and was last used before ``before_s`` (seconds since the epoch)."""
    free = [e for e in entries if e not in in_use and not is_being_written(e, now_s)]
    return oldest_first(e for e in free if e.used_s < before_s)


def trim(root: Path, limit_bytes: int) -> Freed:
    """Remove what was used longest ago until the cache fits; nothing where another process does so now.

    Raises:
        OSError: the folder can't be read or written.
    """
    return _remove(root, lambda e, in_use: over_limit(e, in_use, limit_bytes, time.time()), _TRIM_PATIENCE_S)


def clear(root: Path, older_than_s: float = 0.0) -> Freed:
    """Remove what wasn't used for ``older_than_s`` seconds, but for what a living process uses.

    Raises:
        OSError: the folder can't be read or written.
    """
    now_s = time.time()
    # A file's time and ours may differ by a tick: with no age given all goes.
    before_s = now_s - older_than_s if older_than_s > 0 else float("inf")
    return _remove(root, lambda e, in_use: older_than(e, in_use, before_s, now_s), _CLEAR_PATIENCE_S)


def _remove(root: Path, choose: Choice, patience_s: float) -> Freed:
    entries = scan(root)
    if not choose(entries, Held()) and not leftovers(root):
        return Freed()  # without the lock: this is what is asked after every build
    trash = CacheFolder(root).root / f"{TRASH}{uuid.uuid4().hex}"
    with locked(root, exclusive=True, patience_s=patience_s) as got:
        if not got:
            return Freed(busy=True)
        in_use = held(root)
        gone = [e for e in choose(entries, in_use) if _set_aside(e, trash)]
    for folder in {trash, *leftovers(root)}:  # outside of the lock: nobody can find these any more
        shutil.rmtree(folder, ignore_errors=True)
    kept = [e for e in entries if e in in_use]
    return Freed(len(gone), sum(e.size_bytes for e in gone), len(kept), sum(e.size_bytes for e in kept))


def _set_aside(entry: Entry, trash: Path) -> bool:
    """Rename ``entry`` into ``trash`` in one step; False where somebody was faster, or it was used since it was listed.

    ``entry.used_s`` is stale then: what is used last would go first.
    """
    clock = entry.path / META if entry.kind in (Kind.BUILD, Kind.FAILURE) else entry.path
    with contextlib.suppress(FileNotFoundError):
        if clock.stat().st_mtime != entry.used_s:
            return False
        trash.mkdir(exist_ok=True)
        # Files of one name may lie in several folders of scratch/.
        entry.path.rename(trash / f"{entry.path.parent.name}-{entry.name}")
        return True
    return False
