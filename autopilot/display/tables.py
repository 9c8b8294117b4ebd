"""The result as a table: readable in 80 columns and without colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autopilot.display.costs import render_costs
from autopilot.display.findings import comparison_rows, fallback_rows, objectives, render_front
from autopilot.display.narrow import OrStacked
from autopilot.report import FILE as REPORT
from autopilot.result import is_cut_off, is_out_of_time, nothing_text, speed_axis
from autopilot.words import counted, percent, times

_TITLES = {
    "in_budget": ("IN BUDGET", "bold green"),
    "no_fit": ("NOTHING FITS THE BUDGET", "bold red"),
    "undecided": ("UNDECIDED", "bold yellow"),
}
# More would push the verdict off the screen.
_MOST_WARNINGS = 3
_CHECKED = {"in_budget": "IN BUDGET", "no_fit": "NOT IN BUDGET", "undecided": "UNDECIDED"}
_STYLES = {"in": "green", "out": "red", "undecided": "yellow", "not_measurable": "yellow"}


def render_result(result: Mapping[str, Any], folder: Path | None = None) -> Group:
    """A finished study (result.json's content) in one look; ``folder`` is where its files lie."""
    chosen = result.get("best") or result.get("nearest")
    word, style = _TITLES[result["status"]]
    parts: list[RenderableType] = [Text.assemble((str(result["name"]), "bold"), ": ", (word, style))]
    headline = _headline(result, chosen)
    if headline:
        parts.append(Text(headline))
    label = "winner" if result.get("best") else "nearest"
    parts += ["", OrStacked(_limits(result, chosen, label))]
    parts += _below(result["budget"], chosen or result["baseline"])
    parts += render_front(result)
    # Where the baseline itself is chosen, a second pass over the same model would stand beside the first.
    other = {} if chosen and chosen["id"] == (result.get("baseline") or {}).get("id") else {label: chosen}
    parts += render_costs({"baseline": result.get("baseline")} | other)
    parts += ["", _facts(result, chosen, folder)]
    if result["status"] != "in_budget" and result.get("explanation"):
        parts += ["", Text(str(result["explanation"]))]
    return Group(*parts)


def render_check(check: Mapping[str, Any]) -> Group:
    """What ``check`` found (its JSON): every limit with value, interval and verdict."""
    style = _TITLES[check["status"]][1]
    parts: list[RenderableType] = [
        Text.assemble((str(check["model"]), "bold"), ": ", (_CHECKED[check["status"]], style))
    ]
    if check.get("failure"):
        parts.append(Text(f"it failed ({check['failure']}): {check['reason']}"))
    parts += ["", OrStacked(_limits({"budget": check["budget"]}, check, "model"))]
    parts += [*_below(check["budget"], check), *_unbounded(check)]
    parts += render_costs({"model": check})
    facts = _two_columns()
    if (check.get("baseline_choice") or {}).get("reason"):
        facts.add_row("baseline", Text(str(check["baseline_choice"]["reason"])))
    facts.add_row("deployment", Text(_deployment(check["deployment"])))
    facts.add_row("sha256", Text(str(check["sha256"])))
    return Group(*parts, "", facts)


def _headline(result: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> str:
    """What was won on the objective, in a sentence."""
    axes = objectives(result)
    objective = f"{'objective' if len(axes) == 1 else 'objectives'} {', '.join(axes)}"
    ended = str(result.get("ended") or "")
    if result["status"] == "undecided" and is_out_of_time(ended, len(result.get("trials") or ())):
        last = "the first trial" if is_cut_off(ended) else "the baseline"
        return f"{objective}: {nothing_text(ended)}, time was up with {last}"
    if chosen is None:
        return f"{objective}: no variant could be measured to the end"
    if result.get("front"):
        objective += f": {len(result['front'])} on the front"
    speedup, axis = chosen.get("speedup"), speed_axis(axes)
    if not speedup or speedup.get("value") is None:
        return objective
    of = f"{objective}:" if axes == [axis] else f"{objective}; {axis}"
    interval = (
        f" ({times(speedup.get('low'), speedup.get('high'))})" if speedup.get("low") != speedup.get("high") else ""
    )
    word = "fast" if axis.startswith("latency_") else "good"
    text = f"{of} {speedup['value']:.2f} times as {word} as the baseline{interval}"
    rival = (result.get("baseline_choice") or {}).get("name")
    if rival and chosen["id"] == result["baseline"]["id"]:
        return f"{text}; that, {rival}, is the best"
    return text + ("; the model as given is the best" if not chosen["recipe"] and result.get("best") else "")


def _limits(result: Mapping[str, Any], chosen: Mapping[str, Any] | None, label: str) -> Table:
    """One row a limit, then the objective and the quality where no limit names them."""
    baseline = result.get("baseline")
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("axis", no_wrap=True)
    table.add_column("limit", no_wrap=True)
    if baseline is not None:
        table.add_column("baseline", justify="right", no_wrap=True)
    table.add_column(label, justify="right", no_wrap=True)
    table.add_column("95% interval", justify="right", no_wrap=True)
    table.add_column("verdict")
    budget = result["budget"]
    named = dict.fromkeys([*(objectives(result) if "objective" in result else []), "quality"])
    extra = [a for a in named if a not in budget and _known(a, baseline, chosen)]
    for axis in [*budget, *extra]:
        limit = budget.get(axis)
        cells = [Text(axis), Text(limit["text"].replace("of baseline", "of base") if limit else "")]
        if baseline is not None:
            cells.append(Text(_value(baseline["measured"].get(axis))))
        measured = chosen["measured"].get(axis) if chosen else None
        verdict = str(chosen["verdict"].get(axis, "")) if chosen else ""
        cells.append(Text(_value(measured)))
        cells.append(Text(_judged_on(measured, relative=bool(limit and limit["relative"]))))
        cells.append(Text(verdict.replace("_", " "), style=_STYLES.get(verdict, "")))
        table.add_row(*cells)
    return table


def _known(axis: str, *candidates: Mapping[str, Any] | None) -> bool:
    return any(c is not None and axis in c["measured"] for c in candidates)


def _value(measured: Mapping[str, Any] | None) -> str:
    if measured is None or measured.get("value") is None:
        return "-"
    return _figure(measured["value"])


def _figure(value: float) -> str:
    """Four digits that count; no exponent for everyday sizes."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _judged_on(measured: Mapping[str, Any] | None, *, relative: bool) -> str:
    """The interval a limit is held against: of the ratio to the baseline where the limit is relative."""
    if measured is None or measured.get("value") is None:
        return ""
    if not relative:
        # One process's memory has bounds from what others showed; one start's time and a file's size have none.
        if measured.get("n") == 1 and measured.get("high") in (None, measured["value"]):
            return "one reading"
        return _range(measured) if "low" in measured else ""
    ratio = measured.get("ratio")
    if not ratio:
        return ""
    # A ratio to the baseline is above 0: a bound of 0 stands for none, and is rounded to nothing but that.
    bounds = {k: ratio[k] or None for k in ("low", "high")}
    if bounds["low"] == bounds["high"] and bounds["low"] is not None:
        return percent(bounds["low"])
    return _range(bounds, percent)


def _range(interval: Mapping[str, Any], say: Callable[[float], str] | None = None) -> str:
    """``low..high``; a side without a bound is said so."""

    def side(value: float) -> str:
        if say is not None:
            return say(value)
        return f"{value:.3g}" if abs(value) < 1000 else _figure(value)

    low, high = interval.get("low"), interval.get("high")
    if low is not None and high is not None:
        return f"{side(low)}..{side(high)}"
    if low is not None:
        return f"{side(low)} or more"
    return f"{side(high)} or less" if high is not None else "no bounds"


def _below(budget: Mapping[str, Any], shown: Mapping[str, Any]) -> list[RenderableType]:
    """What the table can't hold: margins, and why something was not measured."""
    lines: list[RenderableType] = []
    margins = {axis: limit["margin"] for axis, limit in budget.items() if limit["margin"]}
    if margins:
        same = len(margins) == len(budget) and len(set(margins.values())) == 1
        text = ", ".join(f"{axis} {percent(margin)}" for axis, margin in margins.items())
        share = f"{percent(next(iter(margins.values())))} on every limit"
        lines.append(Text(f"safety margin kept free: {share if same else text}", style="dim"))
    for axis in budget:
        measured = shown["measured"].get(axis)
        if measured is not None and measured.get("value") is None:
            lines.append(Text(f"{axis}: not measurable: {measured.get('reason') or 'no reason recorded'}"))
    return ["", *lines] if lines else []


# What to do about a percentile of which only a lower bound is known.
_MORE_REQUESTS = (
    "too few requests, since those close together are alike and count as fewer; time more of them (a larger "
    "search.measure_cap) on a quieter machine, or limit a lower percentile"
)


def _unbounded(check: Mapping[str, Any]) -> list[RenderableType]:
    """Of which percentiles too few requests tell an upper bound, and what to do; a study's explanation says it too."""
    lines: list[RenderableType] = []
    for axis, limit in check["budget"].items():
        measured = check["measured"].get(axis) or {}
        figures: Mapping[str, Any] | None = measured.get("ratio") if limit["relative"] else measured
        undecided = (check.get("verdict") or {}).get(axis) == "undecided"
        if undecided and axis.startswith("latency_p") and figures and figures.get("high") is None:
            lines.append(Text(f"{axis}: no upper bound: {_MORE_REQUESTS} ({measured.get('how') or 'no details'})"))
    return lines


def _facts(result: Mapping[str, Any], chosen: Mapping[str, Any] | None, folder: Path | None) -> Table:
    """What the chosen variant consists of and where it is."""
    table = _two_columns()
    if (result.get("baseline_choice") or {}).get("reason"):
        table.add_row("baseline", Text(str(result["baseline_choice"]["reason"])))
    if chosen is not None:
        table.add_row("recipe", Text(_recipe(chosen["recipe"])))
        table.add_row("deployment", Text(_deployment(chosen["deployment"])))
        artifact = str(folder / chosen["artifact"]) if folder is not None else str(chosen["artifact"])
        table.add_row("artifact", Text(artifact))
        table.add_row("sha256", Text(str(chosen["sha256"])))
    more = comparison_rows(result.get("comparisons") or [], objectives(result)[0])
    for name, text in [*more, *fallback_rows(result, folder)]:
        table.add_row(name, Text(text))
    mlflow = result.get("mlflow")
    if mlflow:
        where = f"run {mlflow['run_id']}"
        if mlflow.get("model") and mlflow.get("version") is not None:
            rungs = [f"fallback-{place} {number}" for place, number in enumerate(mlflow.get("fallbacks") or [], 1)]
            versions = ", ".join([str(mlflow["version"]), *rungs])
            where = f"model {mlflow['model']} version {versions}, {where}"
        table.add_row("MLflow", Text(f"{where}\n{_seen(str(mlflow['tracking_uri']))}"))
    if folder is not None and (folder / REPORT).is_file():
        table.add_row("report", Text(f"{folder / REPORT}, a page for the browser"))
    noise = result.get("environment", {}).get("noise")
    if noise:
        median, p99 = percent(noise["p50_percent"] / 100, 2), percent(noise["p99_percent"] / 100, 2)
        processes = counted(noise["pairs"] + 1, "process", "processes")
        table.add_row("noise", Text(f"medians of the same model up to {median} apart, p99 {p99}, in {processes}"))
    trials = result.get("trials", [])
    ended = f", ended since {result['ended']}" if result.get("ended") else ""
    table.add_row("search", Text(f"{counted(len(trials), 'trial')} in {result.get('elapsed_s', 0.0):.0f} s{ended}"))
    if any(stage["trials"] for stage in result.get("stages", [])):
        table.add_row("stages", Text(_stages(result["stages"])))
    warnings = result.get("warnings") or []
    for warning in warnings[:_MOST_WARNINGS]:
        table.add_row("warning", Text(str(warning)))
    if len(warnings) > _MOST_WARNINGS:
        table.add_row("", Text(f"{len(warnings) - _MOST_WARNINGS} more in the report and result.json"))
    return table


def _seen(tracking_uri: str) -> str:
    """How to look at what MLflow has: a server has a page of its own."""
    is_server = tracking_uri.startswith(("http://", "https://"))
    return f"to be seen at {tracking_uri}" if is_server else "to be seen with: autopilot ui"


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    """``load 12 x 0.2 s (3 ended), profile ...``: how often, what one cost, how many trials went no further."""
    said = []
    for stage in stages:
        if stage["trials"]:
            ended = f" ({stage['killed']} ended)" if stage["killed"] else ""
            said.append(f"{stage['stage']} {stage['trials']} x {stage['price_s']:.2g} s{ended}")
    return ", ".join(said)


def _two_columns() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    return table


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_word(value)}" for key, value in values.items())


def _word(value: object) -> str:
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


def _recipe(steps: list[Mapping[str, Any]]) -> str:
    """Every step with its parameters."""
    if not steps:
        return "none: the model as given"
    words = []
    for step in steps:
        settings = _settings({k: v for k, v in step.items() if k != "technique"})
        words.append(f"{step['technique']} ({settings})" if settings else str(step["technique"]))
    return ", then ".join(words)


def _deployment(deployment: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in deployment.items() if k not in ("provider", "threads", "batch")}
    threads = deployment["threads"]
    text = f"{deployment['provider']}, {counted(threads, 'thread')}, batch {deployment['batch']}"
    return f"{text}, {_settings(rest)}" if rest else text
