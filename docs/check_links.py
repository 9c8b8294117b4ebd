#!/usr/bin/env python3
"""Check that every relative link in the project's Markdown files leads somewhere, anchors and images included.

    python docs/check_links.py            # exit code 1 and one line a fault

A page or picture under docs/ that no page links to is a fault too: nobody would find it.

Links to other sites are not followed. Anchors are those of GitHub's rendering.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".venv", "runs", "artifacts", ".git", "node_modules", "build", "dist"}

PICTURES = {".png", ".svg", ".jpg", ".gif"}

_FENCE = re.compile(r"^(```|~~~)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_CODE = re.compile(r"`[^`]*`")


def markdown_files(root: Path) -> list[Path]:
    """All Markdown files under ``root`` but those of environments and of runs."""

    def skipped(file: Path) -> bool:
        return any(part in SKIPPED or part.startswith(".") for part in file.relative_to(root).parts[:-1])

    return sorted(file for file in root.rglob("*.md") if not skipped(file))


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and lines outside fenced code blocks."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line.strip()):
            inside = not inside
        elif not inside:
            yield number, line


def anchors(text: str) -> set[str]:
    """The anchors that headings make: lower case, punctuation dropped, spaces to hyphens, repeats numbered."""
    found: set[str] = set()
    for _, line in prose(text):
        if match := _HEADING.match(line):
            heading = _LINK.sub(lambda m: m.group(0).split("]")[0].lstrip("!["), match.group(1))
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
            base, count = slug, 0
            while slug in found:
                count += 1
                slug = f"{base}-{count}"
            found.add(slug)
    return found


def broken_links(file: Path, root: Path = ROOT) -> list[str]:
    """One line for every link of ``file`` that leads nowhere."""
    text = file.read_text(encoding="utf-8")
    wrong = []
    for number, line in prose(text):
        for target in _LINK.findall(_CODE.sub("", line)):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            path, _, anchor = target.partition("#")
            home = (file.parent / path).resolve() if path else file
            where = f"{file.relative_to(root)}:{number}: {target}"
            if not home.exists():
                wrong.append(f"{where}: no such file")
            elif not home.is_relative_to(root):
                wrong.append(f"{where}: leads out of the project")
            elif anchor and home.suffix == ".md" and anchor not in anchors(home.read_text(encoding="utf-8")):
                wrong.append(f"{where}: no such heading")
    return wrong


def unlinked(files: list[Path], root: Path = ROOT) -> list[str]:
    """One line for every page or picture under docs/ that none of ``files`` leads to."""
    led_to = set()
    for file in files:
        for _, line in prose(file.read_text(encoding="utf-8")):
            led_to |= {(file.parent / t.partition("#")[0]).resolve() for t in _LINK.findall(_CODE.sub("", line))}
    pictures = [p for p in (root / "docs").rglob("*") if p.suffix in PICTURES]
    pages = [p for p in files if p.is_relative_to(root / "docs")]
    return [f"{p.relative_to(root)}: no page links to it" for p in sorted([*pages, *pictures]) if p not in led_to]


def main() -> int:
    """Check all files; the exit code."""
    files = markdown_files(ROOT)
    wrong = [line for file in files for line in broken_links(file)] + unlinked(files)
    for line in wrong:
        print(line)
    print(f"{len(files)} Markdown files, {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
