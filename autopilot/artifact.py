"""Artifact: the file(s) a recipe built, named by content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopilot.recipe import Step


def sha256_file(path: Path) -> str:
    """Hex sha256 of one file, read in chunks of 1 MiB."""
    h = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 20):
            h.update(chunk)
    return h.hexdigest()


@dataclass(frozen=True, slots=True)
class Artifact:
    """An immutable model file, with any external-data files beside it.

    ``path`` is the main file, ``files`` every file that belongs to it (main one first, all in one
    folder), ``size_bytes`` their sum, ``sha256`` the digest of their names and contents,
    ``parent`` the digest it was built from (empty for the model as given).
    """

    path: Path
    files: tuple[Path, ...]
    size_bytes: int
    sha256: str
    parent: str = ""
    step: Step | None = None

    @classmethod
    def of(cls, files: list[Path], *, parent: str = "", step: Step | None = None) -> Artifact:
        """Describe existing files; the first is the main one.

        One file hashes to its own sha256, so that users can check it with ``sha256sum``.
        """
        digests = [sha256_file(f) for f in files]
        if len(files) == 1:
            total = digests[0]
        else:
            names = [[f.name, d] for f, d in zip(files, digests, strict=True)]
            total = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        size = sum(f.stat().st_size for f in files)
        return cls(files[0], tuple(files), size, total, parent, step)

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "files": [str(f) for f in self.files],
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "parent": self.parent,
            "step": self.step.to_json() if self.step else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Artifact:
        step = Step.from_json(value["step"]) if value["step"] else None
        return cls(
            Path(value["path"]),
            tuple(Path(f) for f in value["files"]),
            int(value["size_bytes"]),
            str(value["sha256"]),
            str(value["parent"]),
            step,
        )
