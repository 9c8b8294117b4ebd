"""What is in the cache: sizes, last uses, and what each thing is. Reading it changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autopilot.cache.folder import CacheFolder
from autopilot.cache.sealed import about

META = "meta.json"
STAGING = "staging-"
TRASH = "trash-"
_PART = ".tmp"
# A temporary file of a write under way is younger than this; writing one takes seconds at most. (Builds under way
# are named in a lease.)
_WRITING_S = 600.0


class Kind(StrEnum):
    """What an entry holds."""

    BUILD = "build"
    FAILURE = "failure"  # a step that can't be built, and why
    SCRATCH = "scratch"  # calibration and sensitivity tables
    QUALITY = "quality"
    COMPILED = "compiled"  # kernels and engines, kept by the runtimes that made them
    UNFINISHED = "unfinished"  # a build or a write under way, or left by a killed one


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that is used and removed as a whole. ``used_s``: its last use, seconds since the epoch."""

    kind: Kind
    path: Path
    size_bytes: int
    used_s: float

    @property
    def name(self) -> str:
        """What a lease calls it."""
        return self.path.name

    @property
    def what(self) -> str:
        """A line for people: the step that was built, the score that was kept."""
        if self.kind is Kind.UNFINISHED:
            return "under way or cut off"
        if self.kind is Kind.COMPILED:
            return f"compiled by {self.path.parent.name}"
        return _step(self.path) if self.path.is_dir() else about(self.path) or f"{self.path.parent.name} table"


def scan(root: Path) -> list[Entry]:
    """Every entry under ``root``, in no order; what disappears meanwhile is left out."""
    folder = CacheFolder(root)
    found = [_folder_entry(item) for item in _items(folder.builds) if item.is_dir(follow_symlinks=False)]
    for part, kind in ((folder.quality, Kind.QUALITY), *((Path(i.path), Kind.SCRATCH) for i in _items(folder.scratch))):
        found += [_file_entry(item, kind) for item in _items(part)]
    for kinds in _items(folder.compiled):
        found += [_compiled_entry(item) for item in _items(Path(kinds.path)) if item.is_dir(follow_symlinks=False)]
    return [entry for entry in found if entry is not None]


def leftovers(root: Path) -> list[Path]:
    """What removers that were killed have renamed and not removed."""
    return sorted(CacheFolder(root).root.glob(f"{TRASH}*"))


def _items(folder: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as items:
        yield from items


def _folder_entry(item: os.DirEntry[str]) -> Entry | None:
    """A build; its last use is its meta file's time (of what has none, the time of the folder)."""
    with contextlib.suppress(FileNotFoundError):
        size, used_s, models = 0, None, 0
        for path, _, names in os.walk(item.path):
            for name in names:
                found = os.stat(os.path.join(path, name), follow_symlinks=False)
                size += found.st_size
                if path == item.path and name == META:
                    used_s = found.st_mtime
                else:
                    models += 1
        kind = Kind.BUILD if models else Kind.FAILURE
        if used_s is None or item.name.startswith(STAGING):
            kind, used_s = Kind.UNFINISHED, item.stat().st_mtime
        return Entry(kind, Path(item.path), size, used_s)
    return None


def _compiled_entry(item: os.DirEntry[str]) -> Entry | None:
    """What a runtime keeps of one model; its last use is the folder's own time, which whoever takes it sets."""
    size = 0
    for path, _, names in os.walk(item.path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # the runtime renames and removes files of its own
                size += os.stat(os.path.join(path, name), follow_symlinks=False).st_size
    with contextlib.suppress(FileNotFoundError):
        return Entry(Kind.COMPILED, Path(item.path), size, os.stat(item.path, follow_symlinks=False).st_mtime)
    return None


def _file_entry(item: os.DirEntry[str], kind: Kind) -> Entry | None:
    with contextlib.suppress(FileNotFoundError):
        found = item.stat(follow_symlinks=False)
        kind = Kind.UNFINISHED if item.name.endswith(_PART) else kind
        return Entry(kind, Path(item.path), found.st_size, found.st_mtime)
    return None


def is_being_written(entry: Entry, now_s: float) -> bool:
    """Whether a file of an unfinished write is so young that the write may still go on."""
    return entry.name.endswith(_PART) and now_s - entry.used_s < _WRITING_S


def _step(path: Path) -> str:
    """``static_int8 calibration=minmax … of 77ae6310``, and the reason where it failed."""
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
        step = {**meta["step"]}
        text = " ".join([str(step.pop("technique")), *(f"{k}={v}" for k, v in step.items())])
        text += f" of {meta['parent'][:8]}"
        return f"{text}: {meta['failure']['failure']}, {meta['failure']['message']}" if "failure" in meta else text
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged: it will be built again"
