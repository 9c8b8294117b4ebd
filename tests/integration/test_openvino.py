"""OpenVINO for real: answers, threads, telemetry, the int8 audit, and a search that chooses between providers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import autopilot
from autopilot import plugins
from autopilot.artifact import Artifact
from autopilot.bench.launcher import Server, measure_cold
from autopilot.bench.operators import measure_operators
from autopilot.build import build
from autopilot.build.cache import Cache
from autopilot.errors import Unsupported, VariantFailed, WorkerDied
from autopilot.model import inspect, int8_audit_of_kernels
from autopilot.providers import openvino
from autopilot.recipe import Deployment, Recipe, Step, params_of
from autopilot.target import Target
from tests import models
from tests.integration.bench_support import LIMITS, dense, samples, save, write_split
from tests.integration.run_support import UNTIMED, in_process, result_of, write_study

REASON = openvino.PROVIDER.usable(Target.detect())
pytestmark = [pytest.mark.integration, pytest.mark.skipif(REASON is not None, reason=f"openvino: {REASON}")]

ON = Deployment("openvino")
FORMS: list[dict[str, Any]] = [{"activations": "uint8"}, {"activations": "int8", "symmetric": True}]


def quantized(
    folder: Path, technique: str, *, products: bool = False, **params: Any
) -> tuple[Path, dict[str, np.ndarray]]:
    """A small CNN (``products``: a chain of matrix products) quantized, and one sample for it."""
    path = folder / "float.onnx"
    if products:
        dense(path, width=64, layers=2)
        feed = {"x": samples(64, 64)}
    else:
        model = models.cnn()
        models.write(model, path)
        feed = models.samples(model, 64)
    split = write_split(folder / "calibration", feed)
    declared = plugins.techniques()[technique]
    values = {key: domain.default for key, domain in declared.parameters.items()} | params
    artifact = build(
        Recipe((Step(technique, params_of(declared.normalise(values))),)),
        Artifact.of(list(inspect(path).files)),
        calibration=split,
        cache=Cache(folder / "cache"),
        threads=1,
        limits=LIMITS,
    )
    return artifact.path, {name: value[:1] for name, value in feed.items()}


def test_import_sends_and_leaves_nothing(tmp_path: Path) -> None:
    """Unhindered it reports its import to Google Analytics and leaves an id in the home folder."""
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "from pathlib import Path\n"
        "from autopilot.providers import openvino\n"
        "from autopilot.recipe import Deployment\n"
        f"openvino.PROVIDER.open(Path({str(dense(tmp_path / 'model.onnx'))!r}), Deployment('openvino'))\n"
        "print('openvino_telemetry' in sys.modules and sys.modules['openvino_telemetry'] is None)\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"]
    assert list(home.iterdir()) == []


def test_sizes_of_batch_are_met_one_by_one_and_once(tmp_path: Path) -> None:
    """In every instance, each under a limit of its own; what takes too long is said with how far it had come."""
    split = write_split(tmp_path / "split", {"x": samples(64, 16)})
    path = dense(tmp_path / "model.onnx", width=16, layers=2)
    deployment, asked = Deployment("openvino", batch=3, instances=2), list[tuple[int, int]]()

    def before(done: int, total: int) -> float:
        asked.append((done, total))
        return 60.0

    with Server.start(path, deployment, split=split, limits=LIMITS) as server:
        assert server.open_traffic(before=before) == server.open_traffic(before=before)
    assert asked == [(done, 6) for done in range(6)]

    with (
        Server.start(path, deployment, split=split, limits=LIMITS) as server,
        pytest.raises(WorkerDied, match="openvino compiles for each size of batch in each instance: 2 of 6 were ready"),
    ):
        server.open_traffic(before=lambda done, total: 60.0 if done < 2 else 0.0)


def test_memory_of_scheduled_traffic_is_that_of_all_sizes_in_all_instances(tmp_path: Path) -> None:
    """As much as the kernel accounts to a process that serves so; the weights are packed once a size and instance."""
    split = write_split(tmp_path / "split", {"x": samples(64, 512)})
    path = dense(tmp_path / "model.onnx", width=512, layers=6)
    deployment = Deployment("openvino", batch=6, instances=2)

    one, every = (
        measure_cold(path, deployment, split=split, limits=LIMITS, ready=ready).peak_memory_bytes or 0
        for ready in (None, lambda server: server.open_traffic(for_memory=True))
    )
    with Server.start(path, deployment, split=split, limits=LIMITS) as server:
        server.open_traffic()
        serving = server.peak_memory_bytes() or 0

    assert every > one + 3 * path.stat().st_size
    assert every == pytest.approx(serving, rel=0.1)


def test_server_serves_with_openvino_alone_and_keeps_to_its_thread(tmp_path: Path) -> None:
    """No ONNX Runtime in the process; a thread option that isn't kept would be told."""
    split = write_split(tmp_path / "split", {"x": samples(64, 256)})
    path = dense(tmp_path / "model.onnx", width=256, layers=4)
    with Server.start(path, ON, split=split, limits=LIMITS) as server:
        server.warm_up()
        server.block(200)
        modules = {name.partition(".")[0] for name in server._ask({"do": "modules"})["modules"]}

        assert server.placement.share("OpenVINO") == 1.0
        assert server.warnings == ()
        assert "openvino" in modules
        assert not modules & {"onnxruntime", "onnx", "torch", "mlflow", "optuna", "pandas", "sklearn"}


@pytest.mark.parametrize("shapes", ["fixed", "dynamic"])
def test_every_batch_gets_the_right_answer(shapes: str, tmp_path: Path) -> None:
    """Also beyond the number of shapes that are compiled for, and in several threads at a time."""
    path = dense(tmp_path / "model.onnx", width=8)
    session = openvino.PROVIDER.open(path, Deployment("openvino", options=(("shapes", shapes),)))
    plain = plugins.providers()["cpu"].open(path, Deployment("cpu"))
    feeds = [samples(1 + i % 20, 8, seed=i) for i in range(60)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: session.run({"x": x})[0], feeds))

    for x, answer in zip(feeds, found, strict=True):
        np.testing.assert_allclose(answer, plain.run({"x": x})[0], rtol=1e-4, atol=1e-6)


def properties(session: Any, feed: dict[str, np.ndarray], *names: str) -> tuple[Any, ...]:
    """What OpenVINO says of the model that it compiled for ``feed``."""
    session.run(feed)
    (compiled,) = session._compiled.values()
    return tuple(compiled.get_property(name) for name in names)


@pytest.mark.parametrize("shapes", ["fixed", "dynamic"])
def test_streams_are_as_many_as_are_asked_for(shapes: str, tmp_path: Path) -> None:
    """One when it serves; several when samples are scored side by side, each run on the deployment's threads."""
    path, x = dense(tmp_path / "model.onnx", width=8), {"x": samples(3, 8)}
    served, scored = (
        openvino.PROVIDER.open(path, Deployment("openvino", options=(("shapes", shapes),))) for _ in range(2)
    )
    scored.answer_side_by_side(2)

    assert properties(served, x, "NUM_STREAMS", "INFERENCE_NUM_THREADS") == (1, 1)
    assert properties(scored, x, "NUM_STREAMS", "INFERENCE_NUM_THREADS") == (2, 2)
    with ThreadPoolExecutor(2) as pool:
        for answer in pool.map(lambda _: scored.run(x)[0], range(20)):
            np.testing.assert_array_equal(answer, served.run(x)[0])


@pytest.mark.parametrize(("instances", "pinned"), [(1, True), (2, False)])
def test_threads_of_several_instances_are_not_pinned(instances: int, pinned: bool, tmp_path: Path) -> None:
    """OpenVINO would bind those of all instances to the same core."""
    path = dense(tmp_path / "model.onnx", width=8)
    asked = Deployment("openvino", instances=instances, options=(("pinning", True),))

    assert properties(openvino.PROVIDER.open(path, asked), {"x": samples(1, 8)}, "ENABLE_CPU_PINNING") == (pinned,)
    assert openvino.PROVIDER.irrelevant(asked) == (() if pinned else ("pinning",))


@pytest.mark.parametrize(
    ("dtype", "fits", "beyond"),
    [
        (np.int64, -(2**31), -(2**31) - 1),
        (np.int64, 2**31 - 1, 2**31),
        (np.uint64, 7, 2**40),
        (np.uint32, 7, 3 * 10**9),
    ],
)
def test_whole_numbers_beyond_32_bits_are_refused(dtype: Any, fits: int, beyond: int, tmp_path: Path) -> None:
    """OpenVINO cuts them: an id of five billion would be another id."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x, y = (helper.make_tensor_value_info(name, kind, ["n"]) for name in "xy")
    path = save(tmp_path / "model.onnx", [helper.make_node("Identity", ["x"], ["y"])], [x], [y], {})
    session = openvino.PROVIDER.open(path, ON)

    assert session.run({"x": np.array([fits, 3], dtype)})[0].tolist() == [fits, 3]
    assert session.run({"x": np.array([], dtype)})[0].tolist() == []
    with pytest.raises(Unsupported, match=f"'x' holds {beyond}"):
        session.run({"x": np.array([3, beyond], dtype)})


def test_arrays_that_may_not_be_written_are_taken(tmp_path: Path) -> None:
    """What comes from a file or another process: a mapped array, bytes, one row for all."""
    session = openvino.PROVIDER.open(dense(tmp_path / "model.onnx", width=8), ON)
    x = samples(2, 8)
    wanted = session.run({"x": x})[0]
    np.save(tmp_path / "x.npy", x)
    read_only = [np.load(tmp_path / "x.npy", mmap_mode="r"), np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape)]

    for array in [*read_only, np.broadcast_to(x[0], (2, 8))]:
        np.testing.assert_array_equal(session.run({"x": array})[0][0], wanted[0])


def test_shape_that_only_reshaping_would_take_is_refused(tmp_path: Path) -> None:
    """A model of 4 columns must not become one of 5."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    session = openvino.PROVIDER.open(path, ON)

    assert session.run({"x": samples(2, 4)})[0].shape == (2, 4)
    with pytest.raises(VariantFailed, match="'x'"):
        session.run({"x": samples(2, 5)})


def test_operator_that_openvino_lacks_is_unsupported(tmp_path: Path) -> None:
    """A known limit, no crash; the message names the operator."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Nonsense", ["x"], ["y"], domain="com.acme")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)

    with pytest.raises(Unsupported, match="Nonsense"):
        openvino.PROVIDER.open(path, ON)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 4, 8, 16])
def test_int8_products_answer_right_at_every_size_of_batch(size: int, form: dict[str, Any], tmp_path: Path) -> None:
    """OpenVINO's code for a whole chain of int8 products at once, which it takes for few samples, answers garbage."""
    path, _ = quantized(tmp_path, "static_int8", products=True, **form)
    feed = {"x": samples(size, 64, seed=1)}
    wanted = plugins.providers()["cpu"].open(path, Deployment("cpu")).run(feed)[0]

    found = openvino.PROVIDER.open(path, ON).run(feed)[0]

    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("products", [False, True])
def test_static_int8_is_seen_in_integer_kernels(products: bool, form: dict[str, Any], tmp_path: Path) -> None:
    """Both forms that are recommended for it; every product is found again, those of a chain too."""
    path, feed = quantized(tmp_path, "static_int8", products=products, **form)
    session = openvino.PROVIDER.open(path, ON, optimized_model=tmp_path / "unused.onnx")
    session.run(feed)

    found = int8_audit_of_kernels(path, session.kernels() or (), {k: v.shape for k, v in feed.items()})

    assert found.claimed > 0
    assert found.executed == found.claimed
    assert found.mac_share == pytest.approx(1.0)


def test_dynamic_int8_is_seen_in_float_kernels(tmp_path: Path) -> None:
    """Why it is left out on OpenVINO."""
    path, feed = quantized(tmp_path, "dynamic_int8", products=True, op_types="matmul")
    session = openvino.PROVIDER.open(path, ON, optimized_model=tmp_path / "unused.onnx")
    session.run(feed)

    assert int8_audit_of_kernels(path, session.kernels() or ()).is_fake


def test_operators_are_timed_by_its_own_counters(tmp_path: Path) -> None:
    """In a process of its own, as for every provider."""
    split = write_split(tmp_path / "split", {"x": samples(64, 64)})
    table = measure_operators(dense(tmp_path / "model.onnx", width=64), ON, split=split, limits=LIMITS)

    assert table.by_provider() == {"OpenVINO": pytest.approx(1.0)}
    assert {row.operator for row in table.rows} & {"FullyConnected", "MatMul"}


def test_search_over_providers_tries_each_and_its_winner_loads_again(tmp_path: Path) -> None:
    """A provider that isn't there is told once and never drawn; the winner runs from its folder."""
    missing = "cuda" if plugins.providers()["cuda"].usable(Target.detect()) else None
    providers = ["cpu", "openvino", *([missing] if missing else [])]
    spec = write_study(
        tmp_path,
        target={"providers": providers, "threads": 1},
        space="openvino",
        search={"trials": 6, "timeout": "300s", "seed": 0},
        **UNTIMED,
    )

    done = in_process("run", str(spec), "--out", "out", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    found = result_of(tmp_path / "out")
    assert {trial["deployment"]["provider"] for trial in found["trials"]} == {"cpu", "openvino"}
    if missing:
        assert done.stderr.count("provider cuda is left out: ") == 1
        assert "no NVIDIA device" in found["explanation"] or "onnxruntime-gpu" in found["explanation"]
    runner = autopilot.load(tmp_path / "out" / "best")
    held = json.loads((tmp_path / "out" / "best" / "variant.json").read_text())
    feed = {
        t["name"]: np.zeros([d if isinstance(d, int) else 1 for d in t["shape"]], t["dtype"]) for t in held["inputs"]
    }
    assert all(np.isfinite(value).all() for value in runner(feed).values())


def test_study_on_openvino_alone_needs_no_other_provider(tmp_path: Path) -> None:
    """Its baseline is the model as given on OpenVINO; int8 there is audited by kernels."""
    spec = write_study(
        tmp_path,
        target={"providers": ["openvino"], "threads": 1},
        space="openvino",
        search={"trials": 3, "timeout": "300s", "seed": 0},
        **UNTIMED,
    )

    done = in_process("run", str(spec), "--out", "out", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    found = result_of(tmp_path / "out")
    assert {trial["deployment"]["provider"] for trial in found["trials"]} == {"openvino"}
    audited = [t["measured"]["int8_node_share"]["value"] for t in found["trials"] if "int8_node_share" in t["measured"]]
    assert any(share == pytest.approx(1.0) for share in audited if share is not None)
