"""Caches with made-up entries."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from autopilot.artifact import Artifact
from autopilot.build.cache import Cache
from autopilot.cache import CacheFolder, Lease
from autopilot.cache.entries import META
from autopilot.cache.folder import make_folder
from autopilot.cache.sealed import write_sealed
from autopilot.recipe import Step

STEP = Step("toy")


def key_of(name: str) -> str:
    """A key as long as real ones."""
    return hashlib.sha256(name.encode()).hexdigest()


def put(
    root: Path, name: str, *, size: int = 1000, used_s: float | None = None, lease: Lease | None = None
) -> Artifact:
    """A build of ``size`` bytes under the key of ``name``, last used at ``used_s``."""
    cache = Cache(root, lease)
    with cache.staging() as folder:
        built = folder / "built"
        built.mkdir()
        (built / "model.onnx").write_bytes(name.encode().ljust(size, b"."))
        artifact = cache.put(key_of(name), built, parent="p" * 64, step=STEP, took_s=1.5)
    if used_s is not None:
        os.utime(artifact.path.parent / META, (used_s, used_s))
    return artifact


def put_score(root: Path, name: str, *, size: int = 100, used_s: float | None = None) -> Path:
    """A file of ``quality/`` with ``size`` bytes in it."""
    path = CacheFolder(root).quality / f"{key_of(name)}.npz"
    write_sealed(path, b"s" * size, f"accuracy of {name}")
    if used_s is not None:
        os.utime(path, (used_s, used_s))
    return path


def new_root(folder: Path) -> Path:
    """An empty, marked cache."""
    return make_folder(folder / "cache").root
