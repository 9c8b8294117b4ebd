"""The whole way to a device, on a machine that only pretends to have one (``tests/fake_gpu``): all but its kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import helper

from autopilot.bench.launcher import measure_cold
from autopilot.profile import HOST, HOST_SHAPES, Placement
from autopilot.recipe import Deployment
from benchmarks.gpu_encoder import write_encoder
from tests.integration.bench_support import LIMITS, samples, save, value, write_split
from tests.integration.run_support import environment, write_study

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the pretended NVML lists Linux's processes"),
]

ROOT = Path(__file__).resolve().parents[2]
# A limit on what is read from a device's own counters; none that a busy machine could decide.
BUDGET = {"gpu_memory_mb": 400, "energy_mj": 1e9, "quality_drop": 0.5}


def pretending(cwd: Path) -> dict[str, str]:
    """The environment of a process in ``cwd`` that sees a device."""
    out = environment(cwd)
    return {**out, "PYTHONPATH": os.pathsep.join((str(ROOT / "tests" / "fake_gpu"), out["PYTHONPATH"]))}


def run(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A Python process that sees a device; its output is shown where it ends otherwise than with ``code``."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=pretending(cwd),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def test_gpu_tests_pass_where_a_device_is_pretended(tmp_path: Path) -> None:
    """What is to run first on a machine with a device; TensorRT's engines and inductor's kernels can't be pretended."""
    done = run(
        *("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t")),
        *("-k", "not engine and not rtx and not torch_compile", "tests/integration/test_gpu.py"),
        cwd=ROOT,
    )

    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_doctor_tells_of_the_device(tmp_path: Path) -> None:
    """Providers that are usable, where memory and energy are read."""
    found = json.loads(run("-m", "autopilot", "doctor", "--json", cwd=tmp_path).stdout)

    assert found["clash"] is None
    assert found["target"]["gpus"] == ["NVIDIA Pretence"]
    assert {name for name in ("cuda", "tensorrt") if found["providers"][name]["usable"]} == {"cuda", "tensorrt"}
    assert "gpu_memory_mb" in found["providers"]["cuda"]["memory_axes"]
    assert found["target"]["gpu_memory"]["source"] == "nvml"


@pytest.mark.parametrize(
    ("providers", "space"), [(["cuda"], "cuda"), (["tensorrt", "cuda"], "tensorrt")], ids=["cuda", "tensorrt"]
)
def test_search_on_a_device_ends_with_a_measured_winner(tmp_path: Path, providers: list[str], space: str) -> None:
    """Every variant is where it was asked for; memory and energy of the device are read and judged."""
    # The objective is no time: here variants tie on that, and finalists that tie are compared for a dozen seconds.
    spec = write_study(
        tmp_path, budget=BUDGET, target={"providers": providers, "threads": 1}, space=space, objective="size_mb"
    )
    run("-m", "autopilot", "run", str(spec), "--trials", "3", "--out", "out", "--quiet", cwd=tmp_path)
    result: dict[str, Any] = json.loads((tmp_path / "out" / "result.json").read_text())

    assert result["status"] == "in_budget"
    best = result["best"]
    assert best["deployment"]["provider"] in providers
    assert best["measured"]["gpu_memory_mb"]["value"] == pytest.approx(300)
    # The pretended device takes the same power idle and at work: what it takes above idle is noise of either sign.
    assert abs(best["measured"]["energy_mj"]["value"]) < 1000
    assert best["measured"]["provider_node_share"]["value"] == 1.0
    assert best["measured"]["provider_time_share"]["value"] == 1.0
    # fuse finds nothing in this model; nothing else may break, and nothing may fall back.
    assert {t["failure"] for t in result["trials"]} <= {None, "unsupported"}
    assert "NVIDIA Pretence" in (tmp_path / "out" / "report.html").read_text()


def test_nodes_on_the_host_are_told_apart_by_what_they_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a serving process, which names them, to its parent, which reads the file: shapes, and a fallback."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"], "sizes"),
        helper.make_node("Gather", ["sizes", "zero"], ["n"], "/host/n"),
        helper.make_node("Cast", ["n"], ["count"], "/host/count", to=1),
        helper.make_node("Gather", ["x", "order"], ["picked"], "/host/picked", axis=1),
        helper.make_node("Div", ["picked", "count"], ["y"], "y"),
    ]
    stored = {"zero": np.array(0), "order": np.array([1, 0])}
    path = save(tmp_path / "model.onnx", nodes, [value("x", ["n", 4])], [value("y", ["n", 2])], stored)
    split = write_split(tmp_path / "split", {"x": samples(8, 4)})
    monkeypatch.setenv("PYTHONPATH", pretending(tmp_path)["PYTHONPATH"])

    found = measure_cold(path, Deployment("cuda"), split=split, limits=LIMITS).placement

    assert found == Placement({"CUDAExecutionProvider": 2, HOST: 1, HOST_SHAPES: 2})


def test_benchmark_of_the_device_writes_its_result(tmp_path: Path) -> None:
    """Every row runs, or says why not."""
    folder = write_encoder(
        tmp_path / "encoder", samples=30, layers=1, width=16, heads=2, tokens=8, vocabulary=32, classes=4
    )
    spec = yaml.safe_load((folder / "spec.yaml").read_text())
    (folder / "spec.yaml").write_text(yaml.safe_dump({**spec, "name": "small"}))
    out = tmp_path / "results"
    done = run(
        *(str(ROOT / "benchmarks" / "gpu.py"), str(folder), "--out", str(out), "--seconds", "38"),
        *("--providers", "cuda,tensorrt"),
        cwd=ROOT,
    )
    (written,) = out.glob("*-gpu-small.json")
    told = json.loads(written.read_text())

    assert told["finished"]
    assert sum(row["is_baseline"] for row in told["rows"]) == 1
    assert told["rows"][0]["latency_p50_ms"] > 0
    assert "comparison" in told["rows"][1]
    assert {row["left_out"] for row in told["rows"] if "left_out" in row} <= {"no time left"}
    assert written.with_suffix(".md").read_text() in done.stdout or str(written.with_suffix(".md")) in done.stdout
