"""Every kind of entry that ``autopilot cache`` lists is explained in docs/caches.md."""

from __future__ import annotations

import re
from pathlib import Path

from autopilot.cache.summary import _PLURALS

ROOT = Path(__file__).resolve().parents[2]
# How techniques and providers name what they keep: `context.scratch / "calibration"`, `compiled("inductor")`.
_NAMED = re.compile(r"\bscratch / \"([a-z-]+)\"|\bcompiled\(\"([a-z-]+)\"\)")


def listed() -> set[str]:
    """The words of the column ``kind``."""
    kept: set[str] = set()
    for folder in ("techniques", "torch_model", "providers"):
        for file in (ROOT / "autopilot" / folder).glob("*.py"):
            kept |= {a or b for a, b in _NAMED.findall(file.read_text(encoding="utf-8"))}
    return kept | set(_PLURALS.values())


def test_every_kind_of_the_cache_is_documented() -> None:
    """A user reads there what fills the disk, and when it is found again."""
    page = (ROOT / "docs" / "caches.md").read_text(encoding="utf-8").partition("## What is in it")[2]
    rows = re.findall(r"^\| ([a-z][a-z, -]*?) \|", page, re.MULTILINE)
    documented = {word for row in rows for word in row.split(", ")} - {"kind"}

    found = listed()

    assert {"calibration", "channel-peaks", "students", "inductor", "tensorrt", "builds"} <= found
    assert documented == found
