"""``autopilot doctor``: what this machine can run and measure, and how noisy it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autopilot.contracts import Provider, facts_of
from autopilot.errors import AutopilotError
from autopilot.target import Target
from autopilot.words import percent

_PACKAGES = "RAPL, the processor packages (all processes on them, no DRAM)"
_BOARDS = "NVML, whole NVIDIA devices"
_SOURCES = {"rapl": _PACKAGES, "nvml": _BOARDS + "; nothing counts the CPU", "rapl+nvml": f"{_PACKAGES}; {_BOARDS}"}
_SOURCES_GPU = {"nvml": "NVML, per process"}


def examine() -> dict[str, Any]:
    """The whole report as JSON; measures noise for a few seconds."""
    from autopilot import plugins

    target = Target.detect()
    return {
        "schema": 1,
        "target": target.to_json(),
        "clash": target.clash,
        "providers": usable_providers(target, plugins.providers()),
        "noise": measured_noise(),
    }


def usable_providers(target: Target, providers: Mapping[str, Provider]) -> dict[str, Any]:
    """Every provider by name: whether it can run here and, where not, why; what it has kernels for and is read from."""
    found: dict[str, Any] = {}
    for name, provider in providers.items():
        reason, facts = provider.usable(target), facts_of(provider)
        found[name] = {
            "usable": reason is None,
            "reason": reason,
            "precisions": list(facts.precisions),
            "memory_axes": list(facts.memory_axes),
            "energy_counters": list(facts.energy_counters),
        }
    return found


def measured_noise() -> dict[str, Any]:
    """How far two runs of the same work differ here, in percent; or why it can't be measured."""
    from autopilot.bench.noise import measure_noise

    try:
        reading = measure_noise()
    except AutopilotError as exc:
        return {"p50_percent": None, "p99_percent": None, "reason": str(exc)}
    return {**reading.to_json(), "reason": ""}


def render(report: Mapping[str, Any]) -> Group:
    """The report for people; readable in 80 columns and without colours."""
    parts: list[RenderableType] = [_machine(report["target"]), "", _providers(report["providers"]), ""]
    parts.append(_measuring(report["target"], report["noise"]))
    parts += ["", _versions(report["target"])]
    if report["clash"]:
        parts += ["", Text(f"problem: {report['clash']}", style="bold red")]
    return Group(*parts)


def _grid() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True, style="bold", min_width=12)
    table.add_column(overflow="fold")
    return table


def _machine(target: Mapping[str, Any]) -> Table:
    table = _grid()
    table.add_row("machine", Text(f"{target['os']}, {target['machine']}, fingerprint {target['fingerprint']}"))
    table.add_row("cpu", Text(str(target["cpu"])))
    table.add_row("cores", Text(f"{target['cores']} usable, {target['physical_cores']} physical"))
    table.add_row("memory", Text(f"{target['memory_bytes'] / 2**30:.1f} GiB"))
    table.add_row("instructions", Text(", ".join(target["cpu_flags"]) or "none known"))
    dot = "yes" if target["int8_dot"] else "no: int8 gains little on this CPU"
    table.add_row("int8 dot", Text(dot))
    driver = f" (driver {target['gpu_driver'] or 'not told'})" if target["gpus"] else ""
    table.add_row("gpus", Text((", ".join(target["gpus"]) or "none") + driver))
    return table


def _providers(providers: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("provider", no_wrap=True, min_width=12)
    table.add_column("usable")
    table.add_column("why not, or what it has kernels for and is measured by", overflow="fold")
    for name, found in providers.items():
        table.add_row(Text(name), "yes" if found["usable"] else "no", Text(found["reason"] or _facts(found)))
    return table


def _facts(found: Mapping[str, Any]) -> str:
    memory = [axis.removesuffix("_memory_mb") for axis in found["memory_axes"]]
    return (
        f"{', '.join(found['precisions'])}; memory: {', '.join(memory)}; "
        f"energy: {', '.join(c.upper() for c in found['energy_counters'])} where there is one"
    )


def _measuring(target: Mapping[str, Any], noise: Mapping[str, Any]) -> Table:
    table = _grid()
    if noise["p50_percent"] is None:
        table.add_row("noise", Text(f"not measured: {noise['reason']}"))
    else:
        table.add_row("noise", Text(_noise_text(noise)))
    energy = target["energy"]
    table.add_row("energy", Text(_SOURCES.get(energy["source"]) or f"not measurable: {energy['reason']}"))
    gpu = target["gpu_memory"]
    table.add_row("gpu memory", Text(_SOURCES_GPU.get(gpu["source"]) or f"not measurable: {gpu['reason']}"))
    return table


def _percent(percents: float) -> str:
    return percent(percents / 100, 2)


def _noise_text(noise: Mapping[str, Any]) -> str:
    return (
        f"{noise['processes']} processes of one model differ by up to {_percent(noise['p50_percent'])} at the median, "
        f"{_percent(noise['p99_percent'])} at p99, short runs of one by {_percent(noise['spread_percent'])}; "
        "limits nearer than that come out undecided"
    )


def _versions(target: Mapping[str, Any]) -> Table:
    table = _grid()
    table.add_row("python", Text(str(target["python"])))
    for name, version in target["versions"].items():
        table.add_row(Text(name), Text(str(version)))
    return table
