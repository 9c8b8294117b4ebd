"""Files that carry their own digest: what comes out is what was put in, or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from autopilot.recipe import digest

_KEY = "digest"
# The last line of a sealed file is shorter than this: a digest and a sentence on what it is.
_LONGEST_SEAL = 2048


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends well; its folder is made.

    Whole or not there, however many processes write it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as f:
            yield f
        os.replace(temporary, path)
    except BaseException:  # an interrupt too must leave no half-written file behind
        Path(temporary).unlink(missing_ok=True)
        raise


def used(path: Path) -> None:
    """Note that ``path`` was used now, in its modification time: one call, whatever the size.

    (The kernel's own access times are mostly switched off or a day late.)
    """
    with contextlib.suppress(OSError):  # a folder that can't be written loses nothing but the order of removal
        os.utime(path)


def sealed_json(value: Mapping[str, Any]) -> str:
    """JSON text of ``value`` that ``opened_json`` gives back, and that it refuses once a byte is changed."""
    return json.dumps({**value, _KEY: digest(dict(value))}, indent=1)


def opened_json(path: Path) -> dict[str, Any] | None:
    """What was sealed in ``path``; None where it is missing, torn or altered.

    Raises:
        OSError: it is there and can't be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    seal = value.pop(_KEY, None)
    try:
        return value if seal == digest(value) else None
    except ValueError:  # JSON that says NaN, which we never write
        return None


def write_sealed(path: Path, payload: bytes, about: str) -> None:
    """Put ``payload`` into ``path``, with its digest and what it is ``about`` on a last line.

    Readers of zip archives and so of .npz files pass over that line.

    Raises:
        OSError: it can't be written; the file is then as it was.
    """
    text = about[: _LONGEST_SEAL // 8]  # JSON takes up to 6 characters for one
    seal = json.dumps({"about": text, "sha256": _sha256(payload, text)})
    with replacing(path) as f:
        f.write(payload + b"\n" + seal.encode() + b"\n")


def read_sealed(path: Path) -> bytes | None:
    """The payload of ``path``, noted as used; None where it is missing, torn or altered (then it is removed)."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    payload, _, seal = content.rstrip(b"\n").rpartition(b"\n")
    found = _seal(seal)
    if found is None or found.get("sha256") != _sha256(payload, found.get("about")):
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    used(path)
    return payload


def about(path: Path) -> str:
    """What a sealed file says it is; empty where it says nothing. Its content is not checked."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - _LONGEST_SEAL))
            found = _seal(f.read().rstrip(b"\n").rpartition(b"\n")[2])
    except OSError:
        return ""
    return str((found or {}).get("about", ""))


def _seal(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _sha256(payload: bytes, text: object) -> str:
    h = hashlib.sha256(str(text).encode())
    h.update(b"\n")
    h.update(payload)
    return h.hexdigest()
