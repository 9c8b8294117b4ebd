"""CUDA and TensorRT for real: placement, answers, graphs, reused engines. Skipped with the reason without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autopilot import plugins
from autopilot.bench.arrivals import Load
from autopilot.bench.launcher import Server
from autopilot.bench.traffic import measure_traffic
from autopilot.recipe import Deployment, params_of
from autopilot.spec import Traffic
from autopilot.target import Target
from tests.integration.bench_support import LIMITS, dense, samples, write_split

pytestmark = [pytest.mark.integration, pytest.mark.gpu]

PROVIDERS = ("cuda", "tensorrt")


def needs(name: str) -> None:
    """Skip with the provider's own reason where it can't run."""
    reason = plugins.providers()[name].usable(Target.detect())
    if reason is not None:
        pytest.skip(f"{name}: {reason}")


@pytest.mark.parametrize("io", ["plain", "bound", "graph"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_answers_are_those_of_the_cpu(name: str, io: str, tmp_path: Path) -> None:
    """In every way of handing arrays over, for several runs of one shape and of another."""
    needs(name)
    path = dense(tmp_path / "model.onnx", width=32, layers=2)
    options = {"io": io} | ({"tf32": False} if name == "cuda" else {"precision": "fp32"})
    session = plugins.providers()[name].open(path, Deployment(name, batch=4, options=params_of(options)))
    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))

    for n in (4, 4, 4, 2, 2):
        x = samples(n, 32, seed=n)
        np.testing.assert_allclose(session.run({"x": x})[0], plain.run({"x": x})[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [*PROVIDERS, "tensorrt_rtx"])
def test_nodes_are_where_they_were_asked_for(name: str, tmp_path: Path) -> None:
    """A small dense model fits a device as a whole."""
    needs(name)
    provider = plugins.providers()[name]
    session = provider.open(dense(tmp_path / "model.onnx"), Deployment(name))

    wanted = getattr(provider, "execution_provider")  # noqa: B009  # optional in the contract
    assert session.placement().share(wanted) == 1.0


@pytest.mark.parametrize("graph", [False, True])
def test_answers_of_the_rtx_plugin_are_those_of_the_cpu(graph: bool, tmp_path: Path) -> None:
    """For several runs of one shape and of another, with and without a CUDA graph."""
    needs("tensorrt_rtx")
    path = dense(tmp_path / "model.onnx", width=32, layers=2)
    deployment = Deployment("tensorrt_rtx", batch=4, options=params_of({"cuda_graph": graph}))
    session = plugins.providers()["tensorrt_rtx"].open(path, deployment)
    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))

    for n in (4, 4, 2, 2):
        x = samples(n, 32, seed=n)
        np.testing.assert_allclose(session.run({"x": x})[0], plain.run({"x": x})[0], rtol=1e-2, atol=1e-3)


def test_engine_of_tensorrt_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start finds the first one's engine."""
    needs("tensorrt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = dense(tmp_path / "model.onnx", width=64, layers=4)
    split = write_split(tmp_path / "split", {"x": samples(32, 64)})
    with Server.start(path, Deployment("tensorrt"), split=split, limits=LIMITS):
        pass
    engines = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.engine")}
    with Server.start(path, Deployment("tensorrt"), split=split, limits=LIMITS):
        pass

    assert engines
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.engine")} == engines


# Each pair compiles twice; all six would take the better part of the target's two minutes.
@pytest.mark.parametrize(
    ("precision", "graphs", "tolerance"),
    [
        ("float32", False, 1e-3),
        ("float32", True, 1e-3),
        ("float16", True, 1e-2),
        ("bfloat16", True, 5e-2),
    ],
)
def test_answers_of_torch_compile_are_those_of_the_cpu(
    precision: str, graphs: bool, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For several runs of one shape and of others, with and without CUDA graphs, in every precision."""
    needs("torch_compile_cuda")
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "cache"))
    path = dense(tmp_path / "model.onnx", width=32, layers=2)
    options = params_of({"precision": precision, "cuda_graphs": graphs, "tf32": False})
    session = plugins.providers()["torch_compile_cuda"].open(path, Deployment("torch_compile_cuda", options=options))
    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))

    answers = []
    for n in (4, 4, 4, 2, 2, 4):
        x = samples(n, 32, seed=len(answers))
        answers.append((session.run({"x": x})[0], plain.run({"x": x})[0]))

    # Compared at the end: a later run must not have written over what an earlier one answered with.
    for found, expected in answers:
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    assert session.placement().share("TorchCompileCUDA") == 1.0


def test_torch_compile_makes_everything_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions and masks that a model makes while it runs would otherwise lie on the host; a graph refuses them."""
    needs("torch_compile_cuda")
    from tests.integration.test_on_device import maker  # imports torch

    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "cache"))
    path = maker(tmp_path)
    session = plugins.providers()["torch_compile_cuda"].open(path, Deployment("torch_compile_cuda"))
    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))

    for n in (3, 3, 3, 5):
        x = samples(n, 4, seed=n)
        for found, expected in zip(session.run({"x": x}), plain.run({"x": x}), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert session.placement().share("TorchCompileCUDA") == 1.0


def test_torch_compile_serves_scheduled_batches_in_threads_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs recorded in one thread are replayed in others, by two instances side by side."""
    needs("torch_compile_cuda")
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "cache"))
    path = dense(tmp_path / "model.onnx", width=32, layers=2)
    split = write_split(tmp_path / "split", {"x": samples(32, 32)})
    deployment = Deployment("torch_compile_cuda", batch=2, instances=2)
    with Server.start(path, deployment, split=split, limits=LIMITS) as server:
        load = Load.of(Traffic("server", 100.0))
        reading, _ = measure_traffic(server, None, load, decided=lambda *_: True, cap_s=3.0)

    assert reading.traffic is not None
    assert reading.traffic.answered.sum() > 0
    assert reading.traffic.unanswered.sum() == 0
