"""Sessions on a device: what stays on the host on purpose, what time can be told, why one can't be opened."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from autopilot.errors import Unsupported, VariantFailed
from autopilot.model import shapes_apart
from autopilot.profile import HOST, HOST_SHAPES, OperatorTable, Placement, Profile
from autopilot.providers._ort import open_session, session_options
from autopilot.providers._ort_device import ON_DEVICE, DeviceSession, device_costs
from autopilot.providers._ort_gpu import open_on_device
from autopilot.providers._ort_profile import NodeRun
from autopilot.recipe import Deployment
from autopilot.search.audit import provider_fallback
from tests.integration.bench_support import dense

CUDA = "CUDAExecutionProvider"


def session(**operators: list[str]) -> DeviceSession:
    """One whose runtime tells of these operators by provider; each node is called as its operator."""
    parts = [
        SimpleNamespace(
            ep_name=name, get_nodes=lambda kinds=kinds: [SimpleNamespace(name=f"/{k}", op_type=k) for k in kinds]
        )
        for name, kinds in operators.items()
    ]
    return DeviceSession(SimpleNamespace(get_outputs=list, get_provider_graph_assignment_info=lambda: parts))  # type: ignore[arg-type]


def fallback(placement: Placement) -> str | None:
    return provider_fallback(Profile("v", placement=placement, environment={"execution_provider": CUDA}))


def test_nodes_on_the_host_are_named(tmp_path: Path) -> None:
    """The serving process reads no model file: whether they compute shapes is for its parent to say."""
    found = session(CUDAExecutionProvider=["Shape", "MatMul"], CPUExecutionProvider=["Gather", "Concat"]).placement()

    assert found == Placement({CUDA: 2, HOST: 2}, (("/Gather", "Gather"), ("/Concat", "Concat")))


def test_session_that_is_all_on_the_device_names_nothing() -> None:
    """And its file isn't read."""
    found = session(CUDAExecutionProvider=["Shape", "MatMul"]).placement()

    assert found == Placement({CUDA: 2})
    assert shapes_apart(found, Path("/not/there.onnx")) is found


def test_operator_without_a_kernel_on_the_device_is_a_fallback(tmp_path: Path) -> None:
    """Whatever shapes there are beside it; nodes that no file knows are judged by their operator."""
    placement = session(CUDAExecutionProvider=["MatMul"], CPUExecutionProvider=["Gather", "NonMaxSuppression"])
    found = shapes_apart(placement.placement(), tmp_path / "not-there.onnx")

    assert found.nodes == {CUDA: 1, HOST: 1, HOST_SHAPES: 1}
    assert found.share(CUDA) == 0.5
    assert "1 of 2 nodes (50.0%) run on CPUExecutionProvider" in (fallback(found) or "")


def run(operator: str, provider: str, took_us: int, elements: int = 4) -> NodeRun:
    return NodeRun(operator, provider, "float32", "", 1, 0, took_us, elements)


def test_time_that_isnt_the_hosts_is_the_devices() -> None:
    """The profiler sees launches only: 5 ms a request, of which 1 ms passes in a node on the host."""
    runs = 2 * [
        run("MatMul", CUDA, 20),
        run("Relu", CUDA, 10),
        run("NonMaxSuppression", HOST, 1000),
        run("Add", HOST, 4),
    ]
    rows = device_costs(runs, 10e-3, requests=2)

    assert [(r.operator, r.provider, r.count) for r in rows[:2]] == [
        (ON_DEVICE, CUDA, 2.0),
        ("NonMaxSuppression", HOST, 1),
    ]
    assert rows[0].seconds == pytest.approx(5e-3 - 1.004e-3)
    assert rows[2].provider == HOST_SHAPES
    assert OperatorTable(rows, 2).by_provider()[HOST] == pytest.approx(0.2)


def test_time_of_large_data_on_the_host_is_no_shapes() -> None:
    """What ran there is told by the profile, whatever the operator."""
    rows = device_costs([run("Add", HOST, 5, elements=100), run("Add", HOST, 50, elements=4096)], 1.0, requests=1)

    assert [(row.provider, row.seconds) for row in rows] == [(HOST, 50e-6), (HOST_SHAPES, 5e-6)]


def test_time_on_two_providers_of_one_device_is_not_told_apart() -> None:
    """TensorRT's engines and CUDA's kernels wait for each other."""
    with pytest.raises(Unsupported, match="can't be told apart"):
        device_costs([run("MatMul", CUDA, 1), run("TRTKernel", "TensorrtExecutionProvider", 1)], 1.0, requests=1)


def test_all_time_is_the_hosts_where_nothing_ran_on_a_device() -> None:
    """A variant that fell back as a whole."""
    assert [row.provider for row in device_costs([run("MatMul", HOST, 10)], 1.0, requests=1)] == [HOST]


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=0", "provider_missing"),
        (900 * "x" + " CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=f", "oom"),
    ],
)
def test_provider_that_cannot_start_says_why(
    said: str, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime would print it and go on with the CPU."""
    path = dense(tmp_path / "model.onnx")
    options = session_options(Deployment("cuda"), {}, None, path)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, HOST])
    monkeypatch.setattr(ort, "InferenceSession", refusing(said))

    with pytest.raises(VariantFailed, match="can't load the model: CUDA failure") as caught:
        open_on_device(path, options, [(CUDA, {})])

    assert "hostname" not in caught.value.message
    assert caught.value.failure == failure


def refusing(said: str) -> type:
    """onnxruntime's sessions where the device's provider throws ``said``, their fallback included."""

    class Session(ort.InferenceSession):  # type: ignore[misc]
        def _create_inference_session(self, providers: Any, *rest: Any) -> None:
            if CUDA in [p[0] if isinstance(p, tuple) else p for p in providers]:
                raise RuntimeError(said)
            super()._create_inference_session(providers, *rest)

    return Session


def test_model_that_cannot_be_captured_is_not_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With graphs on ONNX Runtime refuses to load what isn't the device's as a whole."""
    path = dense(tmp_path / "model.onnx")
    said = "This session cannot use the graph capture feature as requested by the user as the model has control flow"

    def refuse(*_: Any, **__: Any) -> Any:
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail

        raise Fail(said)

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, HOST])
    monkeypatch.setattr(ort, "InferenceSession", refuse)

    with pytest.raises(Unsupported, match="graph capture"):
        open_on_device(path, session_options(Deployment("cuda"), {}, None, path), [(CUDA, {})])


def test_plain_sessions_keep_onnx_runtimes_own_fallback(tmp_path: Path) -> None:
    """The CPU's provider has nothing to fall back to and is opened as ever."""
    path = dense(tmp_path / "model.onnx")

    assert open_session(path, session_options(Deployment("cpu"), {}, None, path), [HOST]).output_names == ("y",)
