"""Where a request's time goes: its latencies, its stages, its operators."""

from __future__ import annotations

from collections.abc import Mapping

from autopilot.profile import OperatorCost, OperatorTable
from autopilot.report.charts.latency import distribution_chart, tail_chart
from autopilot.report.content import Content
from autopilot.report.html import Html, el
from autopilot.report.sections.parts import number, section, table
from autopilot.report.words import figure
from autopilot.result import Candidate
from autopilot.words import counted, percent

# The dearest rows of both sides; the others are one row, so that shares still add up.
MOST_ROWS = 8
# The profiler costs some 4 us a node: beyond this factor the shares are mostly the number of nodes (see measuring.md).
SLOWED = 1.5
_STAGES = ("preprocess", "inference", "postprocess")
_SUFFIX = "ExecutionProvider"

# Operator, provider, types.
Key = tuple[str, str, str]


def latency_sections(content: Content) -> list[Html]:
    """The distribution and its tail; one section that says why where no readings are there."""
    readings = content.readings
    names = {"baseline": "baseline", "chosen": content.chosen_name}
    charts = distribution_chart(readings, names), tail_chart(readings, names)
    if charts[0] is None or charts[1] is None:
        why = readings.note or "no raw readings were kept"
        return [section("latency", "Latency of requests", el("p", f"Not shown: {why}.", class_="note"))]
    n = " and ".join(f"{s.size:,} of the {names[who]}" for who, s in readings.curves.items())
    taken = "fresh processes, held-back data" if readings.verified else "the search's own readings"
    how = ", read in alternation" if len(readings.curves) > 1 else ""
    note = f"Single requests{how} ({taken}): {n}."
    return [
        section("latency", "Latency of requests", charts[0], note=note),
        section("tail", "The slow requests", charts[1], note="The same requests by how rare they are: 99% is the p99."),
    ]


def costs_section(content: Content) -> Html | None:
    """Stages and operators of baseline and chosen variant, side by side."""
    sides: dict[str, Candidate] = {"baseline": content.result.baseline}
    if content.chosen is not None and not content.is_baseline:
        sides[content.chosen_name] = content.chosen
    tables = {name: c.operators for name, c in sides.items() if c.operators is not None and c.operators.rows}
    parts = [_stages(sides), _operators(tables) if tables else None, *_remarks(tables)]
    if not any(parts):
        return None
    note = "Milliseconds of one request, from a pass of its own with the runtime's profiler on."
    return section("costs", "Where the time goes", *parts, note=note, is_wide=True)


def _stages(sides: Mapping[str, Candidate]) -> Html | None:
    """One row a stage; None without hooks."""
    known = {name: c.stages.to_json() for name, c in sides.items() if c.stages is not None}
    if not known:
        return None
    rows = []
    for stage in _STAGES:
        cells: list[object] = [stage]
        for value in known.values():
            cells.append(_share(value[stage]["seconds"], value[stage]["share"]["value"]))
        rows.append(cells)
    return table(["stage", *known], rows, classes="costs")


def _operators(tables: Mapping[str, OperatorTable]) -> Html:
    """The dearest operators on any side, then the others together."""
    sides = [{_key(row): row for row in t.rows} for t in tables.values()]
    totals = [t.total_s for t in tables.values()]
    most = {
        key: max(side[key].seconds / (total or 1.0) for side, total in zip(sides, totals, strict=True) if key in side)
        for side in sides
        for key in side
    }
    keys = sorted(most, key=lambda key: (-most[key], key))
    several = len({provider for _, provider, _ in keys}) > 1
    groups: list[tuple[object, list[Key]]] = [(_name(key, with_provider=several), [key]) for key in keys[:MOST_ROWS]]
    if keys[MOST_ROWS:]:
        groups.append((counted(len(keys) - MOST_ROWS, "other"), keys[MOST_ROWS:]))
    rows = [
        [name, *(_together(side, group, total) for side, total in zip(sides, totals, strict=True))]
        for name, group in groups
    ]
    return table(["operator", *tables], rows, classes="costs")


def _together(side: Mapping[Key, OperatorCost], group: list[Key], total_s: float) -> Html | str:
    rows = [side[key] for key in group if key in side]
    if not rows:
        return ""
    seconds = sum(row.seconds for row in rows)
    return _share(seconds, seconds / total_s if total_s else 0.0, _runs(sum(row.count for row in rows)))


def _runs(count: float) -> str:
    """How often in a request: a fraction where not every request runs it."""
    return counted(round(count), "run") if count == round(count) else f"{count:.4g} runs"


def _share(seconds: float, share: float, more: str = "") -> Html:
    """Milliseconds, and the share as a bar behind them."""
    width = max(0.0, min(1.0, share)) * 100
    bar = el(
        "svg", el("rect", width=width, height=8, rx=1), viewBox="0 0 100 8", preserveAspectRatio="none", class_="bar"
    )
    below = ", ".join(x for x in (percent(share), more) if x)
    return el("span", number(figure(seconds * 1e3), below), bar, class_="share")


def _key(row: OperatorCost) -> Key:
    return row.operator, row.provider, f"{row.dtype}*{row.weights}" if row.weights else row.dtype


def _name(key: Key, *, with_provider: bool) -> Html:
    where = key[1].removesuffix(_SUFFIX) if with_provider else ""
    return el("span", el("code", key[0]), el("small", " ".join(x for x in (key[2], where) if x)))


def _remarks(tables: Mapping[str, OperatorTable]) -> list[Html]:
    """How much of the latency the operators explain."""
    known = {name: (t.covered, t.latency_s) for name, t in tables.items() if t.covered is not None and t.latency_s}
    if not known:
        return []
    # The mean is told: on a busy machine it is far above the median that limits are mostly on.
    text = "Operators over the mean latency without the profiler: "
    said = (f"{name} {percent(share)} of {figure(mean_s * 1e3)} ms" for name, (share, mean_s) in known.items())
    text += ", ".join(said) + "."
    if max(share for share, _ in known.values()) > SLOWED:
        text += (
            " Far above 100%: the nodes are so short that timing them takes longer than running them, or the machine"
        )
        text += " was busier meanwhile."
    return [el("p", text, class_="note")]
