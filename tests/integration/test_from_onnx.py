"""ONNX files become PyTorch modules that answer alike and can be trained; what can't is listed."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")

from autopilot.errors import ModelError, Unsupported  # noqa: E402
from autopilot.export_worker import check  # noqa: E402
from autopilot.torch_model import export_onnx, from_onnx, unsupported  # noqa: E402
from tests import models, torch_files  # noqa: E402
from tests import torch_nets as nets  # noqa: E402

pytestmark = pytest.mark.integration

# Float sums in another order; the outputs are of order 1.
TOLERANCE = 2e-5


def same_answers(path: Path, feed: dict[str, Any], tolerance: float = TOLERANCE) -> Any:
    """Convert, run both on ``feed`` and compare every output; returns what was converted."""
    runner = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = dict(zip((o.name for o in runner.get_outputs()), runner.run(None, feed), strict=True))
    converted = from_onnx(path)
    with torch.no_grad():
        got = converted.outputs(feed)
    assert list(got) == list(expected)
    for name, value in expected.items():
        answer = got[name].numpy()
        assert (answer.shape, answer.dtype) == (value.shape, value.dtype), name
        np.testing.assert_allclose(answer, value, rtol=tolerance, atol=tolerance, err_msg=name)
    return converted


# ---- whole models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["cnn", "cnn_fixed_batch", "cnn_opset11", "encoder", "upsampler", "constant_weights", "weights_as_inputs",
     "half_weights", "wide", "arithmetic"],
)  # fmt: skip
def test_converted_model_answers_alike(tmp_path: Path, name: str) -> None:
    """CNNs, encoders and perceptrons, in the forms that exporters write."""
    model = models.MAKERS[name]()
    path = models.write(model, tmp_path / "model.onnx", external=name == "cnn")
    fixed = 2 if name == "cnn_fixed_batch" else 6

    same_answers(path, models.samples(model, fixed))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("detector", ["GRU: recurrent layers", "If: control flow"]),
        ("recurrent", ["LSTM: recurrent layers"]),
        ("qdq", ["DequantizeLinear: not among", "QuantizeLinear: not among"]),
    ],
)
def test_what_cannot_be_converted_is_listed(tmp_path: Path, name: str, words: list[str]) -> None:
    """Each kind of node once, with its reason; converting raises with the same words."""
    path = models.write(models.MAKERS[name](), tmp_path / "model.onnx")

    found = unsupported(path)

    assert all(any(line.startswith(word) for line in found) for word in words), found
    with pytest.raises(Unsupported, match=words[0].split(":")[0]):
        from_onnx(path)


def test_list_is_empty_for_what_can_be_converted(tmp_path: Path) -> None:
    """Nothing to say."""
    assert unsupported(models.write(models.encoder(), tmp_path / "model.onnx")) == []


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    """A model file can't make the converter read another one."""
    path = models.write(models.cnn(), tmp_path / "inside" / "model.onnx", external=True)
    os.replace(path.parent / "weights.bin", tmp_path / "weights.bin")
    os.symlink(tmp_path / "weights.bin", path.parent / "weights.bin")

    with pytest.raises(ModelError, match="leaves the model's folder"):
        from_onnx(path)


def exported(folder: Path, net: Any, feed: dict[str, Any]) -> tuple[Path, Any]:
    """A network of ``torch_nets`` as ONNX, and itself."""
    return torch_files.exported(net, feed, folder / "model.onnx"), nets.seeded(net)


IMAGES = {"image": np.random.default_rng(0).standard_normal((6, 1, 8, 8)).astype(np.float32)}
TEXTS = {"ids": np.random.default_rng(1).integers(0, 40, (6, 6)), "mask": np.tile([1, 1, 1, 1, 1, 0], (6, 1))}


@pytest.mark.parametrize(("net", "feed"), [(nets.Cnn, IMAGES), (nets.Encoder, TEXTS)])
def test_round_trip_keeps_answers_and_parameters(tmp_path: Path, net: Any, feed: Any) -> None:
    """torch -> ONNX -> torch -> ONNX: the same function, with as many trainable numbers."""
    path, module = exported(tmp_path, net, feed)

    converted = same_answers(path, feed)
    again = tmp_path / "again.onnx"
    told = export_onnx(converted.module, feed, tuple(feed), again, call=converted.call)

    check(again, told, tuple(feed))
    assert told.batch is None
    own = {o.name for o in onnx.load(path).graph.output}
    assert {o.name for o in onnx.load(again).graph.output} == own
    weights = sum(p.numel() for p in module.parameters())
    folded = sum(p.numel() for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters())
    missing_bias = 8 if net is nets.Cnn else 0  # the exporter folds a norm into a convolution that had no bias
    assert sum(p.numel() for p in converted.module.parameters()) == weights - folded + missing_bias


def test_layers_are_torchs_own(tmp_path: Path) -> None:
    """What pruning and distillation look for, under the names of the model that was exported."""
    path, _ = exported(tmp_path, nets.Encoder, TEXTS)

    children = dict(from_onnx(path).module.named_children())

    linear = [name for name, m in children.items() if isinstance(m, torch.nn.Linear)]
    assert linear == ["query", "key", "value", "out", "up", "down", "head"]
    assert all(children[name].bias is not None for name in linear)
    assert [n for n, m in children.items() if isinstance(m, torch.nn.LayerNorm)] == ["norm1", "norm2"]
    assert isinstance(children["tokens"], torch.nn.Embedding)


def test_converted_model_trains(tmp_path: Path) -> None:
    """Gradients reach every parameter, and a few steps lower the loss; copies and state dicts work."""
    path, _ = exported(tmp_path, nets.Cnn, IMAGES)
    converted = from_onnx(path)
    before = copy.deepcopy(converted.module.state_dict())
    module = copy.deepcopy(converted.module).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    x, y = torch.from_numpy(IMAGES["image"]), torch.arange(6) % 4

    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(module(x)["output"], y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in module.parameters())
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0]
    assert all(torch.equal(v, before[k]) for k, v in converted.module.state_dict().items())
    module.load_state_dict(before)
    assert torch.allclose(module.eval()(x)["output"], converted.module(x)["output"])


def test_layers_can_be_pruned(tmp_path: Path) -> None:
    """Torch-Pruning follows the channels through additions, groups and the flatten before the head."""
    pruning = pytest.importorskip("torch_pruning", reason="the extra torch lacks torch-pruning")
    path, _ = exported(tmp_path, nets.Cnn, IMAGES)
    module = from_onnx(path).module
    x = torch.from_numpy(IMAGES["image"])

    graph = pruning.DependencyGraph().build_dependency(module, x)
    layer = module.get_submodule("wide_0")
    group = graph.get_pruning_group(layer, pruning.prune_conv_out_channels, [0, 3, 5])
    group.prune()

    assert layer.out_channels == 13
    assert module.get_submodule("head_2").in_features == 13
    assert module(x)["output"].shape == (6, 4)


# ---- single operators ----------------------------------------------------------------------------------

X = np.random.default_rng(3).standard_normal((2, 4, 6, 6)).astype(np.float32)
POSITIVE = np.abs(X) + 0.5
WHOLE = np.random.default_rng(4).integers(-5, 6, (2, 4)).astype(np.int64)
W = np.random.default_rng(5).standard_normal


def i64(*values: int) -> Any:
    return np.array(values, np.int64)


def f32(*shape: int) -> Any:
    return W(shape).astype(np.float32)


# operator, inputs (the first is the graph's, the others are stored), attributes, opset
SINGLE: list[tuple[str, tuple[Any, ...], dict[str, Any], int]] = [
    *[(op, (X,), {}, 18) for op in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Mish", "Neg",
                                    "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tanh",
                                    "IsNaN", "Selu", "Shape", "Size", "Dropout")],
    *[(op, (POSITIVE,), {}, 18) for op in ("Log", "Reciprocal", "Sqrt")],
    *[(op, (X, f32(4, 1, 1)), {}, 18) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum",
                                                  "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "PRelu")],
    ("Celu", (X,), {"alpha": 0.7}, 18), ("Elu", (X,), {"alpha": 0.7}, 18), ("LeakyRelu", (X,), {"alpha": 0.2}, 18),
    ("HardSigmoid", (X,), {"alpha": 0.3, "beta": 0.4}, 18), ("Gelu", (X,), {}, 20),
    ("Gelu", (X,), {"approximate": "tanh"}, 20), ("Clip", (X, np.float32(-1), np.float32(0.5)), {}, 18),
    ("Clip", (X, np.float32(0), np.float32(6)), {}, 18), ("Clip", (X, None, np.float32(0.5)), {}, 18),
    ("Pow", (POSITIVE, np.float32(1.7)), {}, 18), ("Div", (WHOLE, i64(3)), {}, 18), ("Mod", (WHOLE, i64(3)), {}, 18),
    ("Mod", (WHOLE, i64(3)), {"fmod": 1}, 18), ("Equal", (WHOLE, i64(1)), {}, 18),
    ("Cast", (X,), {"to": TensorProto.INT64}, 18), ("Cast", (WHOLE,), {"to": TensorProto.FLOAT}, 18),
    ("Softmax", (X,), {"axis": 1}, 18), ("Softmax", (X,), {}, 11), ("Softmax", (X,), {"axis": 2}, 12),
    ("LogSoftmax", (X,), {}, 18), ("LogSoftmax", (X,), {}, 11),
    *[(op, (POSITIVE,), {"axes": [1, -1], "keepdims": 0}, 11) for op in (
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSum", "ReduceSumSquare")],
    ("ReduceMean", (X, i64(2, 3)), {}, 18), ("ReduceSum", (X,), {}, 18),
    ("ReduceSum", (X,), {"noop_with_empty_axes": 1}, 18), ("ReduceMax", (X, i64(1)), {"keepdims": 0}, 18),
    ("ArgMax", (X,), {"axis": 1, "keepdims": 0}, 18), ("ArgMin", (X,), {"axis": -1}, 18),
    ("CumSum", (X, np.int64(2)), {}, 18), ("Transpose", (X,), {"perm": [0, 2, 3, 1]}, 18), ("Transpose", (X,), {}, 18),
    ("Reshape", (X, i64(0, -1, 6)), {}, 18), ("Reshape", (X, i64(-1, 144)), {}, 18), ("Flatten", (X,), {}, 18),
    ("Flatten", (X,), {"axis": 2}, 18), ("Flatten", (X,), {"axis": 0}, 18), ("Flatten", (X,), {"axis": -1}, 18),
    ("Squeeze", (X[:, :1], i64(1)), {}, 18), ("Squeeze", (X[:, :1],), {"axes": [1]}, 11),
    ("Unsqueeze", (X, i64(0, -1)), {}, 18), ("Unsqueeze", (X,), {"axes": [1]}, 11),
    ("Concat", (X, f32(2, 3, 6, 6)), {"axis": 1}, 18), ("Expand", (X[:, :1], i64(1, 3, 1, 1)), {}, 18),
    ("Tile", (X, i64(1, 2, 1, 3)), {}, 18), ("Slice", (X, i64(1), i64(-1), i64(2)), {}, 18),
    ("Slice", (X, i64(0, 5), i64(4, -100), i64(1, 3), i64(2, -2)), {}, 18),
    ("Slice", (X,), {"starts": [1], "ends": [3], "axes": [3]}, 9),
    ("Gather", (X, np.int64(1)), {"axis": 1}, 18), ("Gather", (X, i64(0, -1)), {"axis": 2}, 18),
    ("GatherElements", (X, np.zeros((2, 1, 6, 6), np.int64) - 1), {"axis": 1}, 18),
    ("Pad", (X, i64(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)), {}, 18),
    ("Pad", (X, i64(0, 0, 1, 2, 0, 0, 2, 1)), {"mode": "reflect"}, 18),
    ("Pad", (X, i64(0, 0, 1, 2, 0, 0, 3, 0)), {"mode": "edge"}, 18),
    ("Pad", (X, i64(1, 2), None, i64(2)), {}, 18), ("Trilu", (X, np.int64(1)), {"upper": 0}, 18),
    ("Einsum", (X, f32(4, 5)), {"equation": "bchw,cd->bdhw"}, 18),
    ("DepthToSpace", (X,), {"blocksize": 2}, 18), ("DepthToSpace", (X,), {"blocksize": 2, "mode": "CRD"}, 18),
    ("SpaceToDepth", (X,), {"blocksize": 2}, 18), ("Where", (X > 0, f32(4, 1, 1), f32(1)), {}, 18),
    ("And", (X > 0, np.array(True)), {}, 18), ("Or", (X > 0, np.array(False)), {}, 18), ("Not", (X > 0,), {}, 18),
    ("Xor", (X > 0, np.array(True)), {}, 18),
    ("Resize", (X, None, np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}, 18),
    ("Resize", (X, None, np.array([1, 1, 2, 3], np.float32)), {
        "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, 18),
    ("Resize", (X, None, None, i64(2, 4, 9, 10)), {"mode": "linear"}, 18),
    ("Resize", (X, None, None, i64(2, 4, 9, 10)), {
        "mode": "linear", "coordinate_transformation_mode": "align_corners"}, 18),
    ("Conv", (X, f32(8, 2, 3, 3), f32(8)), {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 0]}, 18),
    ("Conv", (X, f32(5, 4, 3, 3)), {"pads": [0, 1, 2, 1], "dilations": [2, 1]}, 18),
    ("Conv", (X, f32(5, 4, 3, 4)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 18),
    ("Conv", (X, f32(5, 4, 2, 4)), {"auto_pad": "SAME_LOWER"}, 18),
    ("Conv", (X[:, :, 0], f32(5, 4, 3)), {"auto_pad": "VALID"}, 18),
    ("Conv", (X[:, :, :, :, None], f32(5, 4, 3, 3, 1)), {}, 18),
    ("ConvTranspose", (X, f32(4, 2, 3, 3), f32(4)), {
        "group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}, 18),
    ("MaxPool", (X,), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1]}, 18),
    ("MaxPool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "dilations": [1, 1]}, 18),
    ("AveragePool", (X,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 18),
    ("AveragePool", (X,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 18),
    ("GlobalAveragePool", (X,), {}, 18), ("GlobalMaxPool", (X,), {}, 18),
    ("BatchNormalization", (X, f32(4), f32(4), f32(4), np.abs(f32(4)) + 0.1), {"epsilon": 1e-3}, 18),
    ("InstanceNormalization", (X, f32(4), f32(4)), {}, 18), ("LayerNormalization", (X, f32(6), f32(6)), {}, 18),
    ("LayerNormalization", (X, f32(4, 6, 6)), {"axis": 1, "epsilon": 1e-3}, 18),
    ("GroupNormalization", (X, f32(4), f32(4)), {"num_groups": 2}, 21),
    ("Gemm", (X[0, 0], f32(6, 3), f32(3)), {"alpha": 0.5, "beta": 2.0}, 18),
    ("Gemm", (X[0, 0], f32(3, 6), f32(1)), {"transB": 1}, 18), ("Gemm", (X[0, 0], f32(6, 3)), {"transA": 1}, 18),
    ("Gemm", (X[0, 0], f32(6, 3), f32(6, 3)), {"beta": 0.5}, 18), ("MatMul", (X, f32(6, 3)), {}, 18),
    ("MatMul", (X, f32(4, 6, 3)), {}, 18),
]  # fmt: skip


def single(folder: Path, op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], opset: int, n: int = 1) -> Path:
    """A model of one node; its first input is the graph's, the first dimension free."""
    names = [f"i{i}" if value is not None else "" for i, value in enumerate(inputs)]
    outputs = [f"o{i}" for i in range(n)]
    stored = [numpy_helper.from_array(np.asarray(v), nm) for v, nm in list(zip(inputs, names, strict=True))[1:] if nm]
    first = helper.make_tensor_value_info(
        "i0", helper.np_dtype_to_tensor_dtype(inputs[0].dtype), ["N", *inputs[0].shape[1:]]
    )
    node = helper.make_node(op, names, outputs, name="it", **attributes)
    results = [helper.make_empty_tensor_value_info(o) for o in outputs]
    graph = helper.make_graph([node], "g", [first], results, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    path = folder / "model.onnx"
    onnx.save_model(inferred, str(path))
    return path


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "opset"), SINGLE, ids=[f"{i}-{s[0]}" for i, s in enumerate(SINGLE)]
)
def test_operator_answers_alike(
    tmp_path: Path, op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], opset: int
) -> None:
    """One node, its settings where its opset has them."""
    path = single(tmp_path, op, inputs, attributes, opset)

    same_answers(path, {"i0": inputs[0]})
