"""The doctor: every provider with the reason when it can't run, clashes, noise, energy."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from autopilot import doctor
from autopilot.bench.noise import NoiseReading
from autopilot.cli import main
from autopilot.errors import AutopilotError
from autopilot.target import Target

TARGET = Target(
    "x86_64", "Some CPU", 2, 2, 8 << 30, ("avx2",), (), "Linux 6", "3.11", {"onnxruntime": "1.32"}, None, "no counter"
)
NOISE = NoiseReading(3.24, 11.2, 5.0, 6000, 3.0)


def report(**changes: Any) -> dict[str, Any]:
    target = replace(TARGET, **changes)
    providers: Any = {
        "cpu": SimpleNamespace(usable=lambda target: None),
        "cuda": SimpleNamespace(usable=lambda target: "no NVIDIA device"),
    }
    return {
        "target": target.to_json(),
        "clash": target.clash,
        "providers": doctor.usable_providers(target, providers),
        "noise": {**NOISE.to_json(), "reason": ""},
    }


def shown(value: dict[str, Any]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None).print(doctor.render(value))
    return stream.getvalue()


def test_unusable_provider_comes_with_its_reason() -> None:
    """Both for scripts and for people."""
    found = report()

    told = {name: (p["usable"], p["reason"]) for name, p in found["providers"].items()}
    assert told == {"cpu": (True, None), "cuda": (False, "no NVIDIA device")}
    row = next(line for line in shown(found).splitlines() if line.startswith("cuda"))
    assert row.split() == ["cuda", "no", "no", "NVIDIA", "device"]


def test_usable_provider_comes_with_its_kernels_and_counters() -> None:
    """What a figure of it can rest on, before a search is started."""
    text = " ".join(shown(report()).split())

    assert "cpu yes float32, float16, int8; memory: peak, model, resident; energy: RAPL where there is one" in text


def test_noise_and_missing_energy_are_told() -> None:
    """What can't be measured has its reason; what can has its figure."""
    text = shown(report())

    assert "2 processes of one model" in text
    assert "11% at p99" in " ".join(text.split())
    assert "not measurable: no counter" in text
    assert "int8 gains little" in text


def test_sources_of_energy_and_gpu_memory_are_told() -> None:
    """What a counter includes stands beside its name; what isn't there has the machine's own reason."""
    without = " ".join(shown(report(gpu_memory_reason="pynvml is not installed")).split())
    found = report(energy_source="rapl+nvml", energy_reason="", gpu_memory_source="nvml")
    text = " ".join(shown(found).split())

    assert "gpu memory not measurable: pynvml is not installed" in without
    assert "energy RAPL, the processor packages (all processes on them, no DRAM); NVML, whole NVIDIA devices" in text
    assert "gpu memory NVML, per process" in text


def test_clash_of_runtimes_is_told() -> None:
    """Both packages together break each other; pip doesn't say so."""
    text = shown(report(versions={"onnxruntime": "1", "onnxruntime-gpu": "1"}))

    assert "problem: onnxruntime and onnxruntime-gpu are both installed" in text


def test_noise_that_fails_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the report must not depend on it."""

    def broken() -> None:
        raise AutopilotError("no runtime.", "Install one.")

    monkeypatch.setattr("autopilot.bench.noise.measure_noise", broken)

    noise = doctor.measured_noise()

    assert noise["p50_percent"] is None
    assert noise["reason"] == "no runtime. Install one."
    assert "not measured: no runtime." in shown(report() | {"noise": noise})


def test_doctor_json_is_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing but JSON on stdout, with the providers that are really installed."""
    monkeypatch.setattr("autopilot.bench.noise.measure_noise", lambda: NOISE)

    assert main(["doctor", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["providers"]["cpu"]["usable"] is True
    assert found["target"]["cores"] >= 1
    assert found["noise"]["p50_percent"] == NOISE.p50_percent
