"""Converted modules on another device and in half precision, without a GPU: the meta device stands in for one.

It keeps no values, and takes no tensor of the host beside its own but single numbers: what would end or slow a
run on a GPU shows here, operator by operator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")

from autopilot.torch_model import Converted, from_onnx  # noqa: E402
from autopilot.torch_model.compiled import _NO_MEMORY, _refuse, use_tf32  # noqa: E402
from autopilot.torch_model.on_device import HALVES, compute_in, devices, place  # noqa: E402
from tests import models  # noqa: E402
from tests.integration.test_from_onnx import SINGLE, single  # noqa: E402

pytestmark = pytest.mark.integration

# Operators that jump: a rounded input gives another answer altogether.
JUMPS = frozenset({"ArgMax", "ArgMin", "Cast", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less",
                   "LessOrEqual", "Mod", "Round", "Sign"})  # fmt: skip
WHOLE_MODELS = ("cnn", "cnn_opset11", "encoder", "upsampler", "half_weights", "wide", "arithmetic")
EACH = pytest.mark.parametrize(
    ("op", "inputs", "attributes", "opset"), SINGLE, ids=[f"{i}-{s[0]}" for i, s in enumerate(SINGLE)]
)


def maker(folder: Path) -> Path:
    """x (N, 4) -> sum (N, 4), count (): positions, a filled shape and sizes used as numbers, all made while running."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["count"], axis=0),
        helper.make_node("Range", ["first", "count", "step"], ["places"]),
        helper.make_node("Cast", ["places"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "axis"], ["column"]),
        helper.make_node("Add", ["x", "column"], ["moved"]),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["halves"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])
        ),
        helper.make_node("Mul", ["moved", "halves"], ["scaled"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["sizes"], ["total"], keepdims=0),
        helper.make_node("Add", ["scaled", "total"], ["sum"]),
    ]
    stored = {"first": np.int64(0), "step": np.int64(1), "axis": np.array([1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["N", 4]),
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()],
    )
    path = folder / "maker.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def narrowed(path: Path, feed: dict[str, Any], precision: str) -> tuple[Converted, dict[str, Any]]:
    """The model computed in ``precision``, and what it answers to ``feed`` in its own types."""
    converted = from_onnx(path)
    with torch.no_grad():
        expected = converted.outputs(feed)
    given = dict(zip(converted.call.parameters, (feed[n].dtype.name for n in converted.call.names), strict=True))
    made = {name: str(value.dtype).removeprefix("torch.") for name, value in expected.items()}
    compute_in(converted.module, precision, inputs=given, outputs=made)
    return converted, expected


def where(converted: Converted, feed: dict[str, Any], device: str) -> set[str]:
    """The kinds of device that values lie on with all inputs on ``device``."""
    plain, _ = converted.call.arguments(feed)
    return set(devices(converted.module, [t.to(device) for t in plain]))


@EACH
def test_operator_stays_on_the_device(
    tmp_path: Path, op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], opset: int
) -> None:
    """Nothing that it makes while it runs lies on the host."""
    converted = from_onnx(single(tmp_path, op, inputs, attributes, opset))
    place(converted.module, "meta")

    assert where(converted, {"i0": inputs[0]}, "meta") <= {"meta"}


@pytest.mark.parametrize("name", WHOLE_MODELS)
def test_model_stays_on_the_device(tmp_path: Path, name: str) -> None:
    """CNNs, encoders and perceptrons with everything that they store."""
    model = models.MAKERS[name]()
    converted = from_onnx(models.write(model, tmp_path / "model.onnx"))
    place(converted.module, "meta")

    assert where(converted, models.samples(model, 2), "meta") == {"meta"}


def test_tensors_made_of_nothing_are_made_on_the_device(tmp_path: Path) -> None:
    """Positions, filled shapes and sizes: without a word PyTorch makes them on the host, which is what is found."""
    x = np.ones((3, 4), np.float32)
    left = from_onnx(maker(tmp_path))
    left.module.to("meta")
    moved = from_onnx(maker(tmp_path))
    place(moved.module, "meta")

    assert where(moved, {"x": x}, "meta") == {"meta"}
    with pytest.raises(RuntimeError):  # a column of the host's beside a matrix of the device's
        where(left, {"x": x}, "meta")
    place(moved.module, "cpu")


def test_values_on_the_host_are_told(tmp_path: Path) -> None:
    """What placement reports when a part stays behind."""
    converted = from_onnx(maker(tmp_path))

    found = devices(converted.module, [torch.ones(3, 4)])

    assert set(found) == {"cpu"}
    assert 8 <= found["cpu"] < sum(n.op.startswith("call_") for n in converted.module.graph.nodes)


@pytest.mark.parametrize("precision", HALVES)
@EACH
def test_operator_keeps_its_types_in_half_precision(
    tmp_path: Path, op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], opset: int, precision: str
) -> None:
    """Types and shapes as the file's; smooth ones answer alike to the precision's eight bits, whole ones exactly."""
    feed = {"i0": inputs[0]}
    converted, answers = narrowed(single(tmp_path, op, inputs, attributes, opset), feed, precision)

    with torch.inference_mode():
        got, expected = converted.outputs(feed)["o0"], answers["o0"]

    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    if not got.is_floating_point() and op not in JUMPS:
        assert torch.equal(got, expected)
    elif op not in JUMPS:
        largest = float(expected.abs().max())
        torch.testing.assert_close(got, expected, rtol=0.03, atol=0.03 * largest)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", [*WHOLE_MODELS, "maker"])
def test_model_answers_alike_in_half_precision(tmp_path: Path, name: str, precision: str) -> None:
    """Inputs of whole numbers stay so; what is computed in between is in the other type."""
    if name == "maker":
        path, feed = maker(tmp_path), {"x": np.ones((3, 4), np.float32)}
    else:
        model = models.MAKERS[name]()
        path, feed = models.write(model, tmp_path / "model.onnx"), models.samples(model, 4)
    converted, expected = narrowed(path, feed, precision)

    with torch.inference_mode():
        got = converted.outputs(feed)

    for key, value in expected.items():
        assert got[key].dtype == value.dtype
        largest = max(float(value.abs().max()), 1e-3)
        torch.testing.assert_close(got[key], value, rtol=0.03, atol=0.03 * largest)
    kept = {t.dtype for t in converted.module.state_dict().values() if t.is_floating_point()}
    assert kept <= {getattr(torch, precision)}


@pytest.mark.parametrize("precision", HALVES)
def test_masks_of_attention_stay_numbers(tmp_path: Path, precision: str) -> None:
    """-3.4e38 is beyond float16, and 0 times minus infinity would be no number."""
    low = np.float32(np.finfo(np.float32).min)
    feed = {"i0": np.array([[0.0, 1.0]], np.float32)}
    converted, _ = narrowed(single(tmp_path, "Mul", (feed["i0"], low), {}, 18), feed, precision)

    with torch.inference_mode():
        got = converted.outputs(feed)["o0"]

    assert got.isfinite().all()
    assert got[0, 0] == 0
    assert got[0, 1] < -60_000


def test_infinities_stay_what_they_are(tmp_path: Path) -> None:
    """A mask that says minus infinity means it."""
    feed = {"i0": np.zeros((1, 2), np.float32)}
    stored = np.array([0.0, -np.inf], np.float32)
    converted, _ = narrowed(single(tmp_path, "Add", (feed["i0"], stored), {}, 18), feed, "float16")

    with torch.inference_mode():
        got = converted.outputs(feed)["o0"]

    assert got.tolist() == [[0.0, float("-inf")]]


@pytest.mark.parametrize("allowed", [True, False])
def test_both_interfaces_to_tf32_agree(allowed: bool) -> None:
    """Inductor reads the old one in some places and the new one in others; torch refuses to read a mixture."""
    before = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    try:
        use_tf32(allowed)

        assert torch.backends.cuda.matmul.allow_tf32 is allowed
        assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is allowed
        assert (torch.get_float32_matmul_precision() == "high") is allowed
        assert torch.backends.cudnn.allow_tf32 is allowed
        assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is allowed
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("text", [f"{sign}. Tried to allocate 2.00 GiB" for sign in _NO_MEMORY])
def test_memory_that_runs_out_is_no_crash(text: str) -> None:
    """The search then lowers the batch instead of blaming the recipe."""
    from autopilot.errors import VariantFailed

    for error in (RuntimeError(text), torch.OutOfMemoryError(text)):
        with pytest.raises(VariantFailed) as caught:
            _refuse(error, "running the model failed")
        assert caught.value.failure == "oom"


def test_error_of_the_device_is_a_crash() -> None:
    """An illegal access ends the process's device: nothing of it can be used again."""
    from autopilot.errors import VariantFailed

    with pytest.raises(VariantFailed) as caught:
        _refuse(RuntimeError("CUDA error: an illegal memory access was encountered"), "running the model failed")

    assert caught.value.failure == "crash"
