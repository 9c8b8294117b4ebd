"""The cache as tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autopilot.display.narrow import OrStacked
from autopilot.words import counted

_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def bytes_text(size_bytes: float) -> str:
    """Three digits and a unit.

    >>> bytes_text(1_234_567)
    '1.23 MB'
    """
    # 999.6 kB is a MB when it is rounded.
    factor, unit = next(((f, u) for f, u in _UNITS if size_bytes >= 0.9995 * f), (1, "bytes"))
    return f"{size_bytes / factor:.3g} {unit}"


def render_cache(summary: Mapping[str, Any]) -> Group:
    """Folder, size and limit, then a line a kind (the JSON of a Summary); its list, where it has one, below."""
    size, limit = summary["size_bytes"], summary["limit_bytes"]
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    facts.add_column(no_wrap=True, min_width=6)
    facts.add_column(overflow="fold")
    facts.add_row("folder", Text(_from_home(summary["folder"])))
    share = f" ({size / limit:.0%})" if limit else ""
    facts.add_row("size", Text(f"{bytes_text(size)} of {bytes_text(limit)}{share}"))
    in_use = summary["in_use"]
    facts.add_row("in use", Text("can't be told" if in_use is None else f"{in_use} of {_entries(summary['entries'])}"))
    if not summary["entries"]:
        return Group(facts, "", Text("nothing in it yet"))
    parts: list[RenderableType] = [facts, "", OrStacked(_kinds(summary["kinds"]))]
    if "list" in summary:
        parts += ["", _list(summary["list"])]
    return Group(*parts)


def cleared_text(freed: Mapping[str, Any]) -> str:
    """What was removed and what stays, in a sentence."""
    text = f"removed {_entries(freed['entries'])}, {bytes_text(freed['size_bytes'])}"
    if freed["kept_entries"]:
        kept = f"{_entries(freed['kept_entries'])} ({bytes_text(freed['kept_bytes'])})"
        text += f"; kept {kept} in use now"
    return text


def _from_home(folder: str) -> str:
    """``~/…`` for what is in the user's own folder, as shells read it."""
    home = os.path.expanduser("~").rstrip("/")
    return f"~{folder[len(home) :]}" if home and folder.startswith(f"{home}/") else folder


def _entries(count: int) -> str:
    return counted(count, "entry", "entries")


def _kinds(kinds: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("kind", no_wrap=True)
    for header in ("entries", "size"):
        table.add_column(header, justify="right", no_wrap=True)
    for header in ("oldest use", "newest use"):
        table.add_column(header, no_wrap=True)
    for name, found in kinds.items():
        sizes = str(found["entries"]), bytes_text(found["size_bytes"])
        table.add_row(name, *sizes, _local(found["oldest_use"]), _local(found["newest_use"]))
    return table


def _list(entries: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("last use", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("what", overflow="fold")
    for entry in entries:
        what = Text(entry["what"])
        if entry["in_use"]:
            what.append(" (in use)", style="bold")
        table.add_row(_local(entry["used"]), bytes_text(entry["size_bytes"]), entry["kind"], what)
    return table


def _local(time: str) -> str:
    """``2026-01-31 09:05`` where the reader is."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
