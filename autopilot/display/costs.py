"""Where the time goes, as tables: stages of a request, operators of baseline and winner side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autopilot.display.narrow import OrStacked
from autopilot.words import counted

# More rows say little: the rest is one row, so that the shares still add up.
_MOST_ROWS = 8
_STAGES = ("preprocess", "inference", "postprocess")
# A runtime's names of providers end in this; the column is narrow.
_PROVIDER_SUFFIX = "ExecutionProvider"
# Narrow enough for two sides in 80 columns with the longest common operator names.
_NAME_WIDTH = 34

# The profiler costs some 4 us a node (a cnn of 8 nodes: 7 us without it, 44 with it): beyond this factor the
# shares are mostly the number of nodes.
_SLOWED = 1.5

# A row's key: operator, provider, types.
Key = tuple[str, str, str]


def render_costs(candidates: Mapping[str, Mapping[str, Any] | None]) -> list[RenderableType]:
    """Tables of the ``candidates`` by column title (their JSON); nothing where nothing was taken."""
    shown = {title: c for title, c in candidates.items() if c is not None}
    parts: list[RenderableType] = []
    stages = {title: c["stages"] for title, c in shown.items() if c.get("stages")}
    if stages:
        parts += ["", OrStacked(_stages(stages))]
    tables = {title: c["operators"] for title, c in shown.items() if c.get("operators")}
    if tables:
        parts += ["", OrStacked(_operators(tables)), *_remarks(tables)]
    return parts


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")


def _stages(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row a stage: mean milliseconds of a request, and the share."""
    table = _table()
    table.add_column("stage (ms a request)", no_wrap=True)
    for title in stages:
        table.add_column(title, justify="right", no_wrap=True)
        table.add_column("share", justify="right", no_wrap=True)
    for name in _STAGES:
        cells = []
        for stage in stages.values():
            cells += [_ms(stage[name]["seconds"]), _percent(stage[name]["share"]["value"])]
        table.add_row(name, *cells)
    return table


def _operators(tables: Mapping[str, Mapping[str, Any]]) -> Table:
    """The dearest operators on any side, then the others in one row; each side's shares sum to 100%."""
    table = _table()
    table.add_column("operator (ms a request)", no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    for title in tables:
        table.add_column(title, justify="right", no_wrap=True)
        table.add_column("share", justify="right", no_wrap=True)
        table.add_column("runs", justify="right", no_wrap=True)
    sides = [_by_key(side) for side in tables.values()]
    keys = _dearest(sides)
    several = len({provider for side in sides for _, provider, _ in side}) > 1
    for key in keys[:_MOST_ROWS]:
        cells = [cell for side in sides for cell in _cells([side[key]] if key in side else [])]
        table.add_row(Text(_name(key, with_provider=several)), *cells)
    rest = keys[_MOST_ROWS:]
    if rest:
        cells = [cell for side in sides for cell in _cells([side[key] for key in rest if key in side])]
        table.add_row(counted(len(rest), "other"), *cells)
    return table


def _by_key(side: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    return {(row["operator"], row["provider"], _types(row)): row for row in side["rows"]}


def _dearest(sides: list[dict[Key, Mapping[str, Any]]]) -> list[Key]:
    """All rows' keys, by the largest share that they have on any side."""
    keys = dict.fromkeys(key for side in sides for key in side)
    return sorted(keys, key=lambda key: (-max(side[key]["share"] for side in sides if key in side), key))


def _types(row: Mapping[str, Any]) -> str:
    return f"{row['dtype']}*{row['weights']}" if row.get("weights") else str(row["dtype"])


def _name(key: Key, *, with_provider: bool) -> str:
    operator, provider, types = key
    where = f" {provider.removesuffix(_PROVIDER_SUFFIX)}" if with_provider else ""
    return f"{operator} {types}{where}"


def _cells(rows: list[Mapping[str, Any]]) -> list[str]:
    """Milliseconds, share and runs of some rows together; empty where a side has none."""
    if not rows:
        return ["", "", ""]
    seconds, share, count = (sum(row[key] for row in rows) for key in ("seconds", "share", "count"))
    return [_ms(seconds), _percent(share), f"{count:.4g}"]


def _remarks(tables: Mapping[str, Mapping[str, Any]]) -> list[RenderableType]:
    """How much of the latency the tables explain: they come from another pass."""
    known = [f"{title} {_covered(t)}" for title, t in tables.items() if t.get("covered") is not None]
    if not known:
        return []
    lines = [f"operators over mean latency without profiler: {', '.join(known)}"]
    if any((t.get("covered") or 0.0) > _SLOWED for t in tables.values()):
        lines.append(
            "(far above 100%: nodes so short that timing them takes longer than running them, or a busier machine)"
        )
    return [Text(line, style="dim") for line in lines]


def _covered(table: Mapping[str, Any]) -> str:
    """The share, and of what: on a busy machine the mean is far above the median that limits are mostly on."""
    latency_s = table.get("latency_s")
    of = f" of {_ms(latency_s)} ms" if latency_s else ""
    return f"{_percent(table['covered'])}{of}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"


def _percent(share: float) -> str:
    return f"{share:.1%}"
