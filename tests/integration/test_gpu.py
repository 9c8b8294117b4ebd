"""CUDA and TensorRT for real: placement, answers, graphs, reused engines. Skipped with the reason without a GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from autopilot import plugins
from autopilot.bench.arrivals import Load
from autopilot.bench.gpu import gpu_memory
from autopilot.bench.launcher import Server
from autopilot.bench.traffic import measure_traffic
from autopilot.contracts import facts_of
from autopilot.model import shapes_apart
from autopilot.profile import OperatorTable
from autopilot.recipe import Deployment, params_of
from autopilot.spec import Traffic
from autopilot.target import Target
from tests.integration.bench_support import LIMITS, dense, samples, save, value, write_split

pytestmark = [pytest.mark.integration, pytest.mark.gpu]

PROVIDERS = ("cuda", "tensorrt")


@pytest.fixture(autouse=True)
def _tf32_is_each_tests_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session without TensorFloat-32 sets the variable for its whole process, as a serving process may."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")


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
    options = {"io": io} | dict(facts_of(plugins.providers()[name]).exact)
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
    deployment = Deployment("tensorrt_rtx", batch=4, options=params_of({"cuda_graph": graph, "tf32": False}))
    session = plugins.providers()["tensorrt_rtx"].open(path, deployment)
    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))

    for n in (4, 4, 2, 2):
        x = samples(n, 32, seed=n)
        np.testing.assert_allclose(session.run({"x": x})[0], plain.run({"x": x})[0], rtol=1e-2, atol=1e-3)


def test_engine_of_tensorrt_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start finds the first one's engine."""
    needs("tensorrt")
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "cache"))
    path = dense(tmp_path / "model.onnx", width=64, layers=4)
    split = write_split(tmp_path / "split", {"x": samples(32, 64)})
    with Server.start(path, Deployment("tensorrt"), split=split, limits=LIMITS):
        pass
    engines = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.engine")}
    with Server.start(path, Deployment("tensorrt"), split=split, limits=LIMITS):
        pass

    assert engines
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.engine")} == engines


def free_shapes(path: Path) -> Path:
    """``x (n, t, 8) -> y (n t, 8)``: what a transformer with free shapes does between its products."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "zero"], ["n"], axis=0),
        helper.make_node("Gather", ["sizes", "one"], ["t"], axis=0),
        helper.make_node("Mul", ["n", "t"], ["rows"]),
        helper.make_node("Concat", ["rows", "width"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    weights = {"zero": np.array([0]), "one": np.array([1]), "width": np.array([8]), "w": samples(8, 8)}
    return save(path, nodes, [value("x", ["n", "t", 8])], [value("y", ["m", 8])], weights)


def test_shapes_on_the_host_are_no_fallback(tmp_path: Path) -> None:
    """ONNX Runtime computes them there on purpose, and no variant fails for it."""
    needs("cuda")
    path = free_shapes(tmp_path / "model.onnx")
    session = plugins.providers()["cuda"].open(path, Deployment("cuda", options=params_of({"tf32": False})))
    x = samples(3, 5, 8)

    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))
    np.testing.assert_allclose(session.run({"x": x})[0], plain.run({"x": x})[0], rtol=1e-3, atol=1e-4)
    assert shapes_apart(session.placement(), path).share("CUDAExecutionProvider") == 1.0


@pytest.mark.parametrize("io", ["plain", "bound", "graph"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_threads_of_one_session_get_their_own_answers(name: str, io: str, tmp_path: Path) -> None:
    """Quality is scored by as many threads as there are cores."""
    needs(name)
    path = dense(tmp_path / "model.onnx", width=32, layers=2)
    options = {"io": io} | dict(facts_of(plugins.providers()[name]).exact)
    session = plugins.providers()[name].open(path, Deployment(name, batch=4, options=params_of(options)))
    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))
    asked = [samples(4, 32, seed=i) for i in range(64)]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda x: session.run({"x": x})[0], asked))
    for x, answer in zip(asked, answers, strict=True):
        np.testing.assert_allclose(answer, plain.run({"x": x})[0], rtol=1e-3, atol=1e-4)


def test_time_of_a_variant_is_told_by_provider(tmp_path: Path) -> None:
    """All of a small dense model's time passes on the device, whatever the profiler sees of its launches."""
    needs("cuda")
    path = dense(tmp_path / "model.onnx", width=64, layers=4)
    deployment = Deployment("cuda", options=params_of({"io": "graph"}))
    session = plugins.providers()["cuda"].open(path, deployment, profile_to=tmp_path / "profile")
    for i in range(12):
        session.run({"x": samples(1, 64, seed=i)})

    table = OperatorTable(session.operator_costs(5), 5)
    assert table.total_s > 0
    assert table.by_provider() == {"CUDAExecutionProvider": 1.0}


def test_memory_on_the_device_is_read_or_the_reason_told(tmp_path: Path) -> None:
    """A context alone holds hundreds of MB; in a container the driver may name nobody here."""
    needs("cuda")
    path = dense(tmp_path / "model.onnx", width=64)
    split = write_split(tmp_path / "split", {"x": samples(8, 64)})
    with Server.start(path, Deployment("cuda"), split=split, limits=LIMITS) as server:
        found, reason = gpu_memory(server.pid, server.placement)

    assert (found or 0) > 10_000_000 if not reason else found is None


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
