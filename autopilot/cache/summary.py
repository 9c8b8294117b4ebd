"""What `autopilot cache` tells: the cache's size, its parts, its last uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autopilot.cache.entries import Entry, Kind, scan
from autopilot.cache.eviction import oldest_first
from autopilot.cache.folder import cache_folder, check_folder, size_limit
from autopilot.cache.lease import Held, held, locked

_PLURALS = {Kind.BUILD: "builds", Kind.FAILURE: "failures", Kind.QUALITY: "quality", Kind.UNFINISHED: "unfinished"}
# Showing must not wait for somebody who tidies up.
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The cache in ``folder``; ``in_use``: what living processes use, None where that can't be told."""

    folder: Path
    limit_bytes: int
    entries: tuple[Entry, ...]
    in_use: Held | None

    @classmethod
    def read(cls) -> Summary:
        """The cache that runs use now; empty where there is none yet.

        Raises:
            BadInput: the folder or the size that the environment names is wrong.
            OSError: the folder can't be read.
        """
        folder = cache_folder()
        limit_bytes = size_limit(folder)
        if not check_folder(folder):
            return cls(folder, limit_bytes, (), Held())
        return cls(folder, limit_bytes, tuple(reversed(oldest_first(scan(folder)))), _in_use(folder))

    @property
    def size_bytes(self) -> int:
        return sum(e.size_bytes for e in self.entries)

    def to_json(self, *, each: bool = False) -> dict[str, Any]:
        """All of it as data; with ``each`` every entry too, the one used last first."""
        parts: dict[str, list[Entry]] = {}
        for entry in self.entries:
            parts.setdefault(part_of(entry), []).append(entry)
        value = {
            "schema": 1,
            "folder": str(self.folder),
            "limit_bytes": self.limit_bytes,
            **_figures(self.entries, self.in_use),
            "kinds": {name: _figures(parts[name], self.in_use) for name in sorted(parts)},
        }
        return value | {"list": [_entry(e, self.in_use) for e in self.entries]} if each else value


def part_of(entry: Entry) -> str:
    """The word for an entry's kind: of what techniques and runtimes keep, the name that it has there."""
    return entry.path.parent.name if entry.kind in (Kind.SCRATCH, Kind.COMPILED) else _PLURALS[entry.kind]


def _in_use(folder: Path) -> Held | None:
    try:
        with locked(folder, exclusive=True, patience_s=_PATIENCE_S) as got:
            return held(folder) if got else None
    except OSError:  # a folder of another user: what is in it can be shown still
        return None


def _figures(entries: Iterable[Entry], in_use: Held | None) -> dict[str, Any]:
    found = list(entries)
    uses = [e.used_s for e in found]
    return {
        "entries": len(found),
        "size_bytes": sum(e.size_bytes for e in found),
        "in_use": sum(e in in_use for e in found) if in_use is not None else None,
        "oldest_use": _time(min(uses)) if uses else None,
        "newest_use": _time(max(uses)) if uses else None,
    }


def _entry(entry: Entry, in_use: Held | None) -> dict[str, Any]:
    return {
        "kind": part_of(entry),
        "name": entry.name,
        "what": entry.what,
        "size_bytes": entry.size_bytes,
        "used": _time(entry.used_s),
        "in_use": entry in in_use if in_use is not None else None,
    }


def _time(seconds: float) -> str:
    """ISO 8601, in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
