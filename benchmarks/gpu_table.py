"""What ``gpu.py`` leaves behind: a JSON file of its rows and the same as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEADER = ["what", "median ms", "quality", "latency over (95%)", "over which"]


def shown(told: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    if "left_out" in told:
        return [told["row"], "-", "-", f"left out: {told['left_out'][:120]}", ""]
    ratio = told.get("comparison", {}).get("ratio")
    text = f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})" if ratio else "-"
    quality = "-" if told["quality"] is None else f"{told['quality']:.4f}"
    over = told.get("over", "") + (" **baseline**" if told["is_baseline"] else "")
    return [told["row"], f"{told['latency_p50_ms']:.4f}", quality, text, over]


def write(name: str, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], out: Path) -> Path:
    """The JSON and the Markdown beside it; the path of the latter."""
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{about['date']}-gpu-{name}"
    (out / f"{stem}.json").write_text(json.dumps({**about, "rows": list(rows)}, indent=1) + "\n", encoding="utf-8")
    lines = [f"# {about['date']}: {name} on a GPU", "", f"{about['gpus']}; {about['versions']}", ""]
    lines += [f"`{about['command']}`, {about['seconds']:.0f} s. Latencies of one sample, host arrays in and out.", ""]
    lines += [] if about.get("finished", True) else ["Unfinished: the run ended before its last row.", ""]
    lines += [f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), *(shown(r) for r in rows))]
    lines += ["", *(f"- {provider}: {reason}" for provider, reason in about["missing"].items())]
    path = out / f"{stem}.md"
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path
