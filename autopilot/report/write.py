"""Writes the page."""

from __future__ import annotations

from pathlib import Path

from autopilot.errors import BadInput
from autopilot.report.content import Content
from autopilot.report.page import render_page

# The page's name in a run's folder.
FILE = "report.html"


def write_report(content: Content, path: Path) -> Path:
    """Write the report of ``content`` to ``path``, whole or not at all; the path.

    Raises:
        BadInput: the file can't be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(render_page(content), encoding="utf-8", newline="")
        return part.replace(path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise BadInput(f"the report {path} can't be written: {exc.strerror}.", "Choose another file with -o.") from exc
