"""Serving, timing, memory and outputs of real models in real child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from autopilot.bench import control
from autopilot.bench.cores import server_cores
from autopilot.bench.launcher import (
    MIN_BLOCKS,
    Evaluation,
    Server,
    check_sizes,
    evaluate,
    measure_cold,
    measure_empty,
    measure_latency,
    probe_batching,
)
from autopilot.bench.noise import measure_noise
from autopilot.bench.server import _SETTLE_CAP_S
from autopilot.data import Split
from autopilot.errors import DataError, Failure, VariantFailed
from autopilot.profile import LatencyReading
from autopilot.recipe import Deployment
from tests.integration.bench_support import LIMITS, ONE_THREAD, dense, samples, save, value, write_split

pytestmark = pytest.mark.integration

WIDTH = 16
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return write_split(folder / "split", {"x": samples(50, WIDTH)})


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return dense(folder / "dense.onnx", width=WIDTH)


def never(*_: LatencyReading | None) -> bool:
    return False


def expected(x: np.ndarray) -> np.ndarray:
    """What ``dense`` with one layer gives."""
    weights = samples(WIDTH, WIDTH, seed=0) / np.float32(np.sqrt(WIDTH))
    return np.maximum(x @ weights, 0)


# ---- the serving process ---------------------------------------------------------------------------


def test_serving_process_loads_nothing_but_numpy_and_the_runtime(model: Path, split: Split) -> None:
    """What else would be imported would be measured as the model's memory and start time."""
    code = (
        "import sys; from autopilot.bench import server;"
        f"request = dict(artifact={str(model)!r}, split={str(split.folder)!r}, requests=8, limit_bytes=10**6,"
        f" deployment={ONE_THREAD.to_json()!r});"
        "serving, _ = server.load(request); serving.block(4);"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    heavy = ("torch", "onnx", "optuna", "mlflow", "pydantic", "pandas", "sklearn", "scipy", "yaml", "psutil", "rich")
    assert [name for name in heavy if f"'{name}'" in found.stdout] == []
    assert "'onnxruntime'" in found.stdout


def test_block_times_each_request(model: Path, split: Split) -> None:
    """As many latencies as asked for, positive, together no longer than the block's wall time."""
    with Server.start(model, ONE_THREAD, split=split, limits=LIMITS) as server:
        block = server.block(25)

    assert block.latency_s.shape == (25,)
    assert (block.latency_s > 0).all()
    assert block.latency_s.sum() <= block.wall_s
    assert block.cpu_s > 0


def test_server_is_bound_to_the_cores_of_its_threads(model: Path, split: Split) -> None:
    """The last ones this process may use, and really so, as the kernel says."""
    with Server.start(model, ONE_THREAD, split=split, limits=LIMITS) as server:
        assert list(server.cores) == server_cores(1)
        assert os.sched_getaffinity(server.pid) == set(server.cores)
        assert server.warnings == ()


def test_more_threads_than_cores_are_warned_of(model: Path, split: Split) -> None:
    """A deployment that this machine can't give its cores is measured, with a warning."""
    many = Deployment("cpu", threads=len(os.sched_getaffinity(0)) + 1)
    with Server.start(model, many, split=split, limits=LIMITS) as server:
        assert len(server.warnings) == 1


def test_warm_up_finds_the_time_of_a_request(folder: Path) -> None:
    """A model of a hundred times the work takes visibly longer a request."""
    times = []
    for width, layers in ((16, 1), (512, 8)):
        split = write_split(folder / f"warm{width}", {"x": samples(40, width)})
        path = dense(folder / f"warm{width}.onnx", width=width, layers=layers)
        with Server.start(path, ONE_THREAD, split=split, limits=LIMITS) as server:
            server.warm_up()
            assert server.request_s is not None
            times.append(server.request_s)

    assert times[1] > 3 * times[0]


def test_hooks_are_part_of_the_request_and_timed_apart(model: Path, folder: Path) -> None:
    """A request is preprocess + model + postprocess; slow hooks show in both places."""
    steps = folder / "steps.py"
    steps.write_text(
        "import time\n"
        "def pre(raw):\n    time.sleep(0.003)\n    return {'x': raw['x'] * 2}\n"
        "def post(outputs):\n    time.sleep(0.001)\n    return {'y': outputs['y'] + 1}\n"
    )
    hooks = {"preprocess": f"{steps}:pre", "postprocess": f"{steps}:post"}
    split = write_split(folder / "hooked", {"x": samples(40, WIDTH)}, **hooks)
    with Server.start(model, ONE_THREAD, split=split, limits=LIMITS) as server:
        block = server.block(8)
        stages = server.stages_s
    found = evaluate(
        model, ONE_THREAD, split=split, start=0, stop=40, batch=8, folder=folder / "hooked_out", limits=LIMITS
    )

    assert block.preprocess_s is not None
    assert block.postprocess_s is not None
    assert (block.latency_s >= block.preprocess_s + block.postprocess_s).all()
    assert stages["preprocess"] >= 0.003
    assert stages["postprocess"] >= 0.001
    np.testing.assert_allclose(found.load()["y"], expected(2 * samples(40, WIDTH)) + 1, rtol=1e-5)


def test_failing_hook_is_the_users_error(model: Path, folder: Path) -> None:
    """It crosses the process border as DataError with the user's own line."""
    steps = folder / "broken.py"
    steps.write_text("def pre(raw):\n    return {'x': raw['pixels']}\n")
    split = write_split(folder / "broken", {"x": samples(40, WIDTH)}, preprocess=f"{steps}:pre")

    with pytest.raises(DataError, match="line 2"):
        Server.start(model, ONE_THREAD, split=split, limits=LIMITS)


def test_settled_server_uses_no_processor(folder: Path) -> None:
    """After a block of two threads the workers spin for a while; once settled they sleep.

    Where others have the cores they may spin for longer than is waited for, which the answer tells.
    """
    split = write_split(folder / "spin", {"x": samples(64, 512)})
    model = dense(folder / "spin.onnx", width=512, layers=4)
    with Server.start(model, Deployment("cpu", threads=2), split=split, limits=LIMITS) as server:
        for _ in range(20):
            server.block(50)
            if server._ask({"do": "settle"})["seconds"] < _SETTLE_CAP_S:
                break
        else:
            pytest.fail("the workers never came to rest in time")
        before = processor_s(server.pid)
        time.sleep(0.2)

        assert processor_s(server.pid) - before <= 0.03


def processor_s(pid: int) -> float:
    """Processor seconds of a process so far, as the kernel counts them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- latency ---------------------------------------------------------------------------------------


def test_parent_sleeps_while_requests_are_timed(folder: Path, split: Split) -> None:
    """It waits in the kernel: its own processor time is what sending a command and reading figures take."""
    deep = dense(folder / "deep.onnx", width=WIDTH, layers=400)
    with Server.start(deep, ONE_THREAD, split=split, limits=LIMITS) as server:
        server.warm_up()
        assert server.request_s is not None
        own_s = time.process_time()
        block = server.block(max(4, round(0.5 / server.request_s)))
        own_s = time.process_time() - own_s

    assert own_s < 0.1 * block.wall_s


def test_latency_is_read_in_paired_blocks(model: Path, split: Split) -> None:
    """Both readings have the same blocks; ``decided`` ends it after the first look."""
    looks: list[int] = []

    def decided(a: LatencyReading, b: LatencyReading | None) -> bool:
        assert b is not None
        looks.append(a.block_wall_s.size)
        return True

    with (
        Server.start(model, ONE_THREAD, split=split, limits=LIMITS) as a,
        Server.start(model, ONE_THREAD.with_(batch=4), split=split, limits=LIMITS) as b,
    ):
        first, second = measure_latency(a, b, decided=decided, cap_s=20)

    assert second is not None
    assert looks == [MIN_BLOCKS]
    assert first.block_wall_s.size == second.block_wall_s.size == MIN_BLOCKS
    assert (first.samples_per_request, second.samples_per_request) == (1, 4)
    for reading in (first, second):
        assert reading.latency_s.shape == reading.block.shape
        assert np.array_equal(np.unique(reading.block), np.arange(MIN_BLOCKS))


def test_latency_ends_at_the_cap(model: Path, split: Split) -> None:
    """Undecided is an answer too."""
    with Server.start(model, ONE_THREAD, split=split, limits=LIMITS) as server:
        server.warm_up(0.1)
        begun = time.monotonic()
        reading, beside = measure_latency(server, None, decided=never, cap_s=0.5)
        took_s = time.monotonic() - begun

    assert beside is None
    # Not before it; how much of the time is spent between the blocks is the machine's business, and without a cap this
    # would never end.
    assert reading.block_wall_s.size >= 2
    assert max(0.5, reading.block_wall_s.sum()) <= took_s


def test_latency_tells_a_large_model_from_a_small_one(folder: Path) -> None:
    """The interleaved ratio of two models of very different work is far from one, whatever else runs here."""
    split = write_split(folder / "wide", {"x": samples(64, 512)})
    small = dense(folder / "small.onnx", width=512, layers=1)
    large = dense(folder / "large.onnx", width=512, layers=10)
    with (
        Server.start(large, ONE_THREAD, split=split, limits=LIMITS) as a,
        Server.start(small, ONE_THREAD, split=split, limits=LIMITS) as b,
    ):
        first, second = measure_latency(a, b, decided=never, cap_s=1.0)

    assert second is not None
    assert np.median(first.latency_s) > 2 * np.median(second.latency_s)


def test_noise_is_read_from_a_model_against_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite figures from some hundred requests; their size is the machine's business."""
    monkeypatch.setattr(control, "CAP_S", 200.0)  # a machine that starts processes slowly reads fewer of them
    begun = time.monotonic()
    noise = measure_noise(0.15)

    assert noise.processes == 5
    assert noise.requests > 50
    for figure in (noise.p50_percent, noise.p99_percent, noise.spread_percent):
        assert 0 <= figure < np.inf
    assert 0 < noise.seconds < time.monotonic() - begun


# ---- start and memory ------------------------------------------------------------------------------


def test_peak_memory_follows_the_weights(folder: Path) -> None:
    """64 MB of weights add at least 60 MB to the same process without a model, and not the whole machine."""
    split = write_split(folder / "heavy", {"x": samples(40, 2048)})
    model = dense(folder / "heavy.onnx", width=2048, layers=4)
    empty = measure_empty(ONE_THREAD, LIMITS)
    cold = measure_cold(model, ONE_THREAD, split=split, limits=LIMITS, repeats=2)

    assert 20e6 < empty < 200e6
    assert 60e6 < cold.peak_memory_bytes - empty < 400e6
    assert cold.load_s.shape == (2,)
    assert ((cold.load_s > 0.02) & (cold.load_s < 30)).all()
    assert cold.placement.share("CPUExecutionProvider") == 1.0


def test_memory_of_runs_is_about_the_same(model: Path, split: Split) -> None:
    """A high-water mark is a property of the variant, not of the moment: two runs agree within 5 MB."""
    peaks = [measure_cold(model, ONE_THREAD, split=split, limits=LIMITS).peak_memory_bytes for _ in range(2)]

    assert abs(peaks[0] - peaks[1]) < 5e6


# ---- outputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_outputs_do_not_depend_on_the_batch(batch: int, model: Path, split: Split, tmp_path: Path) -> None:
    """The filled-up last group is cut again, also where one group is larger than the range."""
    found = evaluate(model, ONE_THREAD, split=split, start=3, stop=48, batch=batch, folder=tmp_path, limits=LIMITS)

    assert found.output_names == ("y",)
    assert not found.non_finite
    np.testing.assert_allclose(found.load()["y"], expected(samples(50, WIDTH)[3:48]), rtol=1e-4, atol=1e-5)


def test_evaluation_opens_again_from_its_folder(model: Path, split: Split, tmp_path: Path) -> None:
    """The baseline's outputs are computed once and read back later."""
    found = evaluate(
        model, ONE_THREAD, split=split, start=0, stop=9, batch=4, folder=tmp_path, limits=LIMITS, optimized=True
    )
    again = Evaluation.open(tmp_path)

    assert again == found
    assert found.optimized is not None
    assert len(onnx.load(found.optimized).graph.node) == 2
    np.testing.assert_array_equal(again.load()["y"], found.load()["y"])


def test_fixed_batch_model_is_evaluated_in_its_own_groups(split: Split, tmp_path: Path) -> None:
    """Ten samples through a model that takes four at a time."""
    model = dense(tmp_path / "fixed.onnx", width=WIDTH, batch=4)
    found = evaluate(model, ONE_THREAD, split=split, start=0, stop=10, batch=4, folder=tmp_path, limits=LIMITS)

    np.testing.assert_allclose(found.load()["y"], expected(samples(10, WIDTH)), rtol=1e-4, atol=1e-5)


def test_outputs_that_do_not_follow_the_batch_are_left_out(split: Split, tmp_path: Path) -> None:
    """A state with no sample dimension can't be scored; with one sample at a time it is stacked."""
    weights = {"w": np.ones((WIDTH, 3), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
    ]
    outputs = [value("y", ["n", 3]), value("total", [])]
    model = save(tmp_path / "state.onnx", nodes, [value("x", ["n", WIDTH])], outputs, weights)
    shapes = []
    for batch in (5, 1):
        found = evaluate(
            model, ONE_THREAD, split=split, start=0, stop=10, batch=batch, folder=tmp_path / str(batch), limits=LIMITS
        )
        shapes.append({name: array.shape for name, array in found.load().items()})

    assert shapes == [{"y": (10, 3)}, {"y": (10, 3), "total": (10,)}]


def test_sole_output_without_samples_is_refused(split: Split, tmp_path: Path) -> None:
    """Better no score than one of something else."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)]
    model = save(tmp_path / "sum.onnx", nodes, [value("x", ["n", WIDTH])], [value("total", [])], {})

    with pytest.raises(VariantFailed, match="batch size of 1"):
        evaluate(model, ONE_THREAD, split=split, start=0, stop=10, batch=5, folder=tmp_path, limits=LIMITS)


def test_lengths_that_differ_are_padded_and_said(tmp_path: Path) -> None:
    """Two values a sample here, three there: the shorter ones end in the lowest finite number."""
    x = np.array([[1, -1, 2, -2], [1, 2, 3, -1], [1, 2, -1, -1]], dtype=np.float32)
    split = write_split(tmp_path / "split", {"x": x}, batched=False)
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Compress", ["x", "positive"], ["y"]),
    ]
    weights = {"zero": np.zeros(1, np.float32)}
    model = save(tmp_path / "ragged.onnx", nodes, [value("x", [4])], [value("y", ["k"])], weights)
    found = evaluate(model, ONE_THREAD, split=split, start=0, stop=3, batch=1, folder=tmp_path / "out", limits=LIMITS)
    pad = np.finfo(np.float32).min

    assert found.padded == ("y",)
    assert not found.non_finite
    np.testing.assert_array_equal(found.load()["y"], [[1, 2, pad], [1, 2, 3], [1, 2, pad]])


def test_batch_dimension_of_single_samples_is_taken_off(tmp_path: Path) -> None:
    """``batched: false`` with a model that keeps a dimension of 1 gives (samples, ...), not (samples, 1, ...)."""
    split = write_split(tmp_path / "split", {"x": samples(5, 1, WIDTH)}, batched=False)
    model = dense(tmp_path / "one.onnx", width=WIDTH, batch=1)
    found = evaluate(model, ONE_THREAD, split=split, start=0, stop=5, batch=1, folder=tmp_path / "out", limits=LIMITS)

    np.testing.assert_allclose(found.load()["y"], expected(samples(5, 1, WIDTH)[:, 0]), rtol=1e-4, atol=1e-5)


def test_non_finite_outputs_are_flagged(tmp_path: Path) -> None:
    """A logarithm of something negative."""
    split = write_split(tmp_path / "split", {"x": samples(5, WIDTH)})
    shape = ["n", WIDTH]
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    model = save(tmp_path / "log.onnx", nodes, [value("x", shape)], [value("y", shape)], {})
    found = evaluate(model, ONE_THREAD, split=split, start=0, stop=5, batch=5, folder=tmp_path / "out", limits=LIMITS)

    assert found.non_finite


def test_range_outside_the_split_is_refused(model: Path, split: Split, tmp_path: Path) -> None:
    """Before a process is started."""
    with pytest.raises(ValueError, match=r"no samples 0\.\.51"):
        evaluate(model, ONE_THREAD, split=split, start=0, stop=51, batch=1, folder=tmp_path, limits=LIMITS)


# ---- batching --------------------------------------------------------------------------------------


def test_probe_accepts_a_model_with_a_free_batch(model: Path, split: Split) -> None:
    """Three samples at once give what three single runs give."""
    assert probe_batching(model, ONE_THREAD, split, LIMITS)


def test_probe_refuses_a_fixed_batch(split: Split, tmp_path: Path) -> None:
    """The model takes one sample; several make it fail."""
    assert not probe_batching(dense(tmp_path / "m.onnx", width=WIDTH, batch=1), ONE_THREAD, split, LIMITS)


def test_probe_refuses_samples_that_influence_each_other(split: Split, tmp_path: Path) -> None:
    """Shapes are right, values are not: the mean is taken over the batch."""
    shape = ["n", WIDTH]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    model = save(tmp_path / "m.onnx", nodes, [value("x", shape)], [value("y", shape)], {})

    assert not probe_batching(model, ONE_THREAD, split, LIMITS)


def test_probe_raises_when_even_one_sample_fails(split: Split, tmp_path: Path) -> None:
    """That is no matter of batching."""
    with pytest.raises(VariantFailed) as caught:
        probe_batching(dense(tmp_path / "m.onnx", width=WIDTH + 1), ONE_THREAD, split, LIMITS)
    assert caught.value.failure is Failure.CRASH


def times_batch(path: Path) -> Path:
    """``x (n, 4) -> y (n, 4)``: each value by the number of samples in the run."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Cast", ["shape"], ["n"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "n"], ["y"]),
    ]
    return save(path, nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], {})


def test_answers_that_change_with_the_size_of_a_run_are_refused(tmp_path: Path) -> None:
    """What is scored at one size must be what is served at another."""
    split = write_split(tmp_path / "split", {"x": samples(50, 4)})
    asked: dict[str, Any] = {"split": split, "start": 0, "stop": 50, "batch": 4, "limits": LIMITS, "sizes": (1, 3)}

    evaluate(dense(tmp_path / "right.onnx", width=4), ONE_THREAD, folder=tmp_path / "right", **asked)
    with pytest.raises(VariantFailed, match="runs of 1 samples isn't what runs of 4 give") as failed:
        evaluate(times_batch(tmp_path / "wrong.onnx"), ONE_THREAD, folder=tmp_path / "wrong", **asked)

    assert failed.value.failure is Failure.WRONG_NUMERICS


def test_sizes_are_compared_without_scoring_again(tmp_path: Path) -> None:
    """For a deployment of what is scored already."""
    split = write_split(tmp_path / "split", {"x": samples(50, 4)})
    asked: dict[str, Any] = {"split": split, "batch": 4, "limits": LIMITS, "sizes": (1, 3), "scored": ""}

    check_sizes(dense(tmp_path / "right.onnx", width=4), ONE_THREAD, **asked)
    with pytest.raises(VariantFailed, match="runs of 1 samples isn't what runs of 4 give"):
        check_sizes(times_batch(tmp_path / "wrong.onnx"), ONE_THREAD, **asked)
