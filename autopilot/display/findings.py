"""The front, the ladder of fallbacks and direct comparisons, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

# As many as are verified at most: what follows is in result.json.
_MOST_ROWS = 6


def objectives(result: Mapping[str, Any]) -> list[str]:
    """The axes that were to be made as good as possible."""
    found = result["objective"]
    return list(found) if isinstance(found, list) else [str(found)]


def render_front(result: Mapping[str, Any]) -> list[RenderableType]:
    """A row a member of the Pareto front; nothing for a study with one objective."""
    members = result.get("front") or []
    if not members:
        return []
    axes = objectives(result)
    trials = {t["number"]: t for t in result.get("trials", [])}
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("front", justify="right", no_wrap=True)
    for axis in axes:
        table.add_column(axis, no_wrap=True)
    table.add_column("place", no_wrap=True)
    table.add_column("recipe", overflow="fold")
    for member in members[:_MOST_ROWS]:
        trial = trials.get(member["number"])
        cells = [Text(_cell(axis, member["measured"])) for axis in axes]
        place = ("certain" if member["certain"] else "open") + ("" if member["verified"] else ", screened")
        recipe = " > ".join(step["technique"] for step in trial["recipe"]) or "as given" if trial else ""
        table.add_row(str(member["number"]), *cells, place, Text(recipe))
    lines: list[RenderableType] = ["", table]
    rest = len(members) - _MOST_ROWS
    if rest > 0:
        lines.append(Text(f"and {rest} more, in result.json", style="dim"))
    if not all(m["certain"] for m in members):
        text = "open: within the intervals another variant may be as good in all objectives"
        lines.append(Text(text, style="dim"))
    if not all(m["verified"] for m in members):
        lines.append(Text("screened: measured in the search alone, not again on held-back data", style="dim"))
    return lines


def _cell(axis: str, measured: Mapping[str, Any]) -> str:
    """Value and interval; of the quality the interval of what it lost, which is what variants are told apart by."""
    found, drop = measured.get(axis), measured.get("quality_drop")
    if not found or found.get("value") is None:
        return "-"
    text = f"{found['value']:.4g}"
    if axis == "quality" and drop and drop.get("value") is not None:
        return f"{text} (loss {_loss(drop)})"
    return f"{text} ({_range(found)})" if found.get("low") != found.get("high") else text


def _range(interval: Mapping[str, Any]) -> str:
    low, high = interval.get("low"), interval.get("high")
    return f"{'' if low is None else f'{low:.3g}'}..{'' if high is None else f'{high:.3g}'}"


def _loss(interval: Mapping[str, Any]) -> str:
    """Two digits: the table is wide."""
    low, high = interval.get("low"), interval.get("high")
    return f"{'' if low is None else f'{low:.2g}'}..{'' if high is None else f'{high:.2g}'}"


def fallback_rows(result: Mapping[str, Any], folder: Path | None) -> list[tuple[str, str]]:
    """Name and text of every fallback."""
    rows = []
    for place, rung in enumerate(result.get("fallbacks") or [], 1):
        recipe = " > ".join(step["technique"] for step in rung["recipe"]) or "the model as given"
        sure = "" if rung["verified"] else " (screened, not measured again)"
        where = rung["artifact"] if folder is None else str(folder / rung["artifact"])
        rows.append((f"fallback-{place}", f"trial {rung['number']}, {recipe}: {rung['reason']}{sure}; {where}"))
    return rows


def comparison_rows(comparisons: Sequence[Mapping[str, Any]], axis: str) -> list[tuple[str, str]]:
    """What finalists that tied came to when they were read against each other."""
    rows = []
    for c in comparisons:
        r = c["ratio"]
        interval = f"{r['value']:.3f} ({r['low']:.3f}..{r['high']:.3f})"
        tie = ", a tie: the simpler one wins" if c["verdict"] != "faster" else ""
        rows.append(("compared", f"trial {c['faster']} takes {interval} of trial {c['simpler']}'s {axis}{tie}"))
    return rows
