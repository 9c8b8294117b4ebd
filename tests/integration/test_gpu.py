"""CUDA and TensorRT for real: placement, answers, graphs, reused engines. Skipped with the reason without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autopilot import plugins
from autopilot.bench.launcher import Server
from autopilot.recipe import Deployment, params_of
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
