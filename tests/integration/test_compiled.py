"""Sessions of torch.compile: in half precision, in other threads than the one that compiled, on a pretended device."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")

from autopilot import plugins  # noqa: E402
from autopilot.errors import Unsupported  # noqa: E402
from autopilot.providers import torch_compile, torch_compile_cuda  # noqa: E402
from autopilot.recipe import Deployment, params_of  # noqa: E402
from autopilot.target import Target  # noqa: E402
from autopilot.torch_model import compiled, from_onnx  # noqa: E402
from autopilot.torch_model.compiled import Settings, open_session  # noqa: E402
from autopilot.torch_model.on_device import HALVES, devices, place, traced  # noqa: E402
from tests import models  # noqa: E402
from tests.integration.bench_support import dense, samples  # noqa: E402
from tests.integration.test_on_device import maker  # noqa: E402

pytestmark = pytest.mark.integration

needs_compiler = pytest.mark.skipif(
    torch_compile.PROVIDER.usable(Target.detect()) is not None, reason="torch_compile can't run here"
)


def settings(folder: Path, **changes: Any) -> Settings:
    """A session of the host's, in one thread."""
    usual: dict[str, Any] = {"threads": 1, "mode": "default", "freezing": True, "fixed": True, "key": "tests"}
    return Settings(**{**usual, "cache": folder / "inductor", **changes})


@pytest.mark.parametrize("mode", torch_compile_cuda.PARAMETERS["mode"].values)  # type: ignore[union-attr]
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_options_are_inductors(tmp_path: Path, mode: str, graphs: bool, device: str) -> None:
    """torch.compile refuses a name or a type that it doesn't know when it is called."""
    chosen = settings(tmp_path, mode=mode, graphs=graphs, device=device)

    for fixed in (True, False):
        options = chosen.options(fixed=fixed)
        torch.compile(torch.nn.Identity(), options=options)
        assert options.get("triton.cudagraphs", False) is (graphs and fixed and device != "cpu")


def test_graphs_that_inductor_cannot_make_are_an_error(tmp_path: Path) -> None:
    """It would run without them, or in parts, and say so in a log."""
    options = settings(tmp_path, graphs=True, device="cuda:0").options(fixed=True)

    assert options["triton.cudagraph_or_error"] is True
    assert options["graph_partition"] is False


def test_placement_follows_tensors_on_a_device_that_is_not_there(tmp_path: Path) -> None:
    """torch.compile's own tensors without data know devices that the machine hasn't, and so does placement."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    moved, left = from_onnx(maker(tmp_path)).module, from_onnx(maker(tmp_path)).module
    for module in (moved, left):
        with mode:
            for name, buffer in list(module.named_buffers()):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda:0"))
    place(moved, "cuda:0")
    with mode:
        x = torch.empty(3, 4, device="cuda:0")

    assert set(devices(moved, [x], mode)) == {"cuda"}
    with pytest.raises(RuntimeError, match="device"):
        devices(left, [x], mode)


def test_tracing_finds_what_running_does(tmp_path: Path) -> None:
    """The same calls on the same device, with nothing computed."""
    module = from_onnx(maker(tmp_path)).module

    assert traced(module, [((3, 4), "float32")], "cpu") == devices(module, [torch.ones(3, 4)])


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("precision", HALVES)
def test_session_computes_in_half_precision_between_the_files_own_types(tmp_path: Path, precision: str) -> None:
    """What a device does, on the host: several runs, whole numbers in, float32 out."""
    model = models.encoder()
    path = models.write(model, tmp_path / "model.onnx")
    session = open_session(path, settings(tmp_path, precision=precision))
    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))

    for seed in (0, 1):
        feed = models.samples(model, 2, seed=seed)
        (got,), (expected,) = session.run(feed), plain.run(feed)
        assert got.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=0.05, atol=0.05)
        assert not np.array_equal(got, expected)
    assert session.placement().share("TorchCompile") == 1.0


@needs_compiler
@pytest.mark.slow
def test_thread_that_did_not_compile_runs_what_is_there(tmp_path: Path) -> None:
    """Requests under load are answered by threads of their own, each window's anew: none may compile."""
    from torch._dynamo.utils import counters

    options = params_of({"shapes": "fixed"})
    path = dense(tmp_path / "model.onnx", width=8, layers=2)
    session = plugins.providers()["torch_compile"].open(path, Deployment("torch_compile", options=options))
    expected = {n: session.run({"x": samples(n, 8, seed=n)})[0] for n in (1, 2, 3)}
    graphs = counters["stats"]["unique_graphs"]
    found: dict[int, Any] = {}

    def serve(n: int) -> None:
        found[n] = session.run({"x": samples(n, 8, seed=n)})[0]

    for n in expected:
        thread = threading.Thread(target=serve, args=(n,))
        thread.start()
        thread.join()

    assert graphs >= 3
    assert counters["stats"]["unique_graphs"] == graphs
    for n, value in expected.items():
        np.testing.assert_array_equal(found[n], value)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("freezing", [True, False])
def test_weights_are_constants_of_the_program_when_frozen(tmp_path: Path, freezing: bool) -> None:
    """Inductor's option alone does nothing: the tracer has to know too, or weights are packed at every request."""
    from torch._dynamo.utils import counters

    model = models.cnn()
    path = models.write(model, tmp_path / "model.onnx")
    session = open_session(path, settings(tmp_path, freezing=freezing))
    packed = counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"]

    session.run(models.samples(model, 1))

    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch packs no weights")
    assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] - packed == (2 if freezing else 0)


@needs_compiler
@pytest.mark.slow
def test_limit_of_compilations_is_ours_in_every_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers compile in threads of their own, where torch's settings are its defaults; beyond the limit it refuses."""
    monkeypatch.setattr(compiled, "_RECOMPILES", 1)
    session = open_session(dense(tmp_path / "model.onnx", width=8, layers=1), settings(tmp_path))

    def ask(n: int) -> Any:
        return session.run({"x": samples(n, 8, seed=n)})[0]

    with ThreadPoolExecutor(1) as other:
        assert other.submit(ask, 1).result().shape[0] == 1
        with pytest.raises(Unsupported, match="can't compile"):
            other.submit(ask, 2).result()
