"""Recomputed verdicts beside the stored ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_STYLES = {"in": "green", "out": "red", "undecided": "yellow"}


def render_samples(found: Mapping[str, Any], *, figures: bool = False) -> Group:
    """One line a measurement (the JSON of a Recomputation); with ``figures`` all that was computed of each."""
    parts: list[RenderableType] = [_verdicts(found["rows"])]
    if figures:
        for row in found["rows"]:
            if row["measured"]:
                parts += ["", Text(_name(row, "trial "), style="bold"), _figures(row["measured"])]
    style = "bold green" if found["agree"] else "bold red"
    return Group(*parts, "", Text(found["text"], style=style))


def _verdicts(rows: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for header in ("trial", "stored", "recomputed"):
        table.add_column(header, no_wrap=True)
    table.add_column("deviation", justify="right", no_wrap=True)
    table.add_column("kB", justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        size = f"{row['bytes'] / 1e3:.0f}" if row["bytes"] else ""
        cells = [_verdict(row["stored"]), _verdict(row["recomputed"]), Text(_deviation(row)), Text(size)]
        table.add_row(Text(_name(row)), *cells, Text(_remark(row)))
    return table


def _name(row: Mapping[str, Any], before: str = "") -> str:
    if row["what"] == "check":
        return "check"
    what = {"trial": "", "verified": " again", "baseline": " baseline beside"}[row["what"]]
    return f"{before}{row['trial']}{what}"


def _verdict(said: Mapping[str, Any] | None) -> Text:
    word = str(said["overall"] or "-") if said else "-"
    return Text(word.replace("_", " "), style=_STYLES.get(word, ""))


def _deviation(row: Mapping[str, Any]) -> str:
    """A share; JSON has no infinity, so that a figure that is missing on one side is null."""
    if row["agrees"] is None:
        return "-"
    if row["deviation"] is None:
        return "missing"
    return f"{row['deviation']:.1g}" if row["deviation"] else "0"


def _remark(row: Mapping[str, Any]) -> str:
    words = [f"at {row['axis']}"] if row["axis"] else []
    if row["agrees"] is False and _differing(row):
        words.append(f"{', '.join(_differing(row))} judged differently")
    return "; ".join([*words, row["note"]] if row["note"] else words)


def _differing(row: Mapping[str, Any]) -> list[str]:
    then, now = row["stored"]["verdict"], row["recomputed"]["verdict"]
    return [axis for axis in {**then, **now} if then.get(axis) != now.get(axis)]


def _figures(measured: Mapping[str, Mapping[str, Any]]) -> Group:
    """Value, interval, ratio and n of every axis, then how it was taken; what has no value says why."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    # Folded where it is too narrow, the last column first: a figure cut off by "…" would be a wrong one.
    table.add_column("axis", no_wrap=True, overflow="fold")
    for header in ("n", "value", "95% interval"):
        table.add_column(header, justify="right", no_wrap=True, overflow="fold")
    table.add_column("to baseline", justify="right", overflow="fold")
    remarks = []
    for axis, m in measured.items():
        remarks.append(Text(f"{axis}: {m['how'] if m['value'] is not None else m.get('reason', '')}", style="dim"))
        if m["value"] is None:
            table.add_row(Text(axis), "", "-", "", "")
            continue
        ratio = m.get("ratio")
        to_baseline = f"{ratio['value']:.3g} ({_range(ratio)})" if ratio else ""
        table.add_row(Text(axis), *(Text(c) for c in (str(m["n"]), f"{m['value']:.6g}", _range(m), to_baseline)))
    return Group(table, "", *remarks)


def _range(interval: Mapping[str, Any]) -> str:
    """``low..high``; an unbounded side is left open."""
    if "low" not in interval:
        return ""
    low, high = ("" if interval[side] is None else f"{interval[side]:.3g}" for side in ("low", "high"))
    return low if low == high else f"{low}..{high}"
