"""Models and data of the kinds that users bring, each with its spec and its score worked out by hand.

Every case is small, made without torch and scikit-learn's converters, and carries all that a study needs:
``feed`` gives the model's inputs of some rows exactly as onnxruntime wants them, and ``formula`` the metric
written out, so that a test can say what a run has to find without the package's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.models import I64, Array, B, F, Weights, model_of, node, value

U8, I32, F16, F64, STRING = (
    TensorProto.UINT8, TensorProto.INT32, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.STRING,
)  # fmt: skip
Arrays = dict[str, Array]
Formula = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Case:
    """One model with its data and metric.

    ``draw(n, seed)``: stored arrays without the label. ``label(output)``: labels that the model mostly
    gets right. ``feed(arrays, rows)``: inputs of those rows (an int for one row a run). ``files``: further
    files of the study's folder. ``suffix``: of the data files. ``batch``: rows a run of the reference.
    """

    model: ModelProto
    draw: Callable[[int, int], Arrays]
    feed: Callable[[Arrays, Any], Arrays]
    formula: Formula
    metric: Any
    label: Callable[[Array], Array] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    output: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ".npz"
    one_row_a_run: bool = False
    batch: int = 1
    n: int = 60

    def answers(self, path: Path, arrays: Arrays, n: int) -> Array:
        """The scored output of plain onnxruntime for ``n`` rows, samples first."""
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        if self.one_row_a_run:
            return np.stack([session.run(None, self.feed(arrays, i))[self.output] for i in range(n)])
        found = []
        for i in range(0, n, self.batch):
            found.append(session.run(None, self.feed(arrays, slice(i, i + self.batch)))[self.output])
        return np.concatenate(found)


def same(*names: str) -> Callable[[Arrays, Any], Arrays]:
    """Stored arrays are the inputs."""
    return lambda arrays, rows: {name: arrays[name][rows] for name in names}


def floats(**shapes: tuple[int, ...]) -> Callable[[int, int], Arrays]:
    """Normal float32 arrays, one row a sample."""

    def draw(n: int, seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {k: rng.standard_normal((n, *s)).astype(np.float32) for k, s in shapes.items()}

    return draw


def wrong_now_and_then(labels: Array, classes: int) -> Array:
    """One label in ten moved to the next class."""
    labels = labels.copy()
    labels[::10] = (labels[::10] + 1) % classes
    return labels


def best_class(output: Array) -> Array:
    """The argmax, one in ten wrong."""
    return wrong_now_and_then(output.argmax(-1), output.shape[-1])


def accuracy(output: Array, labels: Array) -> float:
    """Share of argmaxes that are right."""
    return float((output.argmax(-1) == labels).mean())


def r2(output: Array, labels: Array) -> float:
    """1 - SSE / SST."""
    got = output.reshape(labels.shape).astype(np.float64)
    return float(1 - ((got - labels) ** 2).sum() / ((labels - labels.mean(0)) ** 2).sum())


def noisy(output: Array) -> Array:
    """One float a sample near the model's answer."""
    rng = np.random.default_rng(7)
    flat = output.reshape(len(output)).astype(np.float64)
    return (flat + 0.2 * flat.std() * rng.standard_normal(len(flat))).astype(np.float32)


def f1(threshold: float, output: Array, labels: Array) -> float:
    """2 TP / (2 TP + FP + FN) over all decisions."""
    said, there = output.reshape(-1) > threshold, labels.reshape(-1) > 0
    return float(2 * (said & there).sum() / max(1, said.sum() + there.sum()))


# ---- vision --------------------------------------------------------------------------------------


def captcha() -> Case:
    """Characters read along the width of an image: pixels uint8 -> probs [N,T,classes], labels padded with -1."""
    w = Weights(20)
    w.put("rows", np.array([0, 8 * 8, -1], np.int64))
    nodes = [
        node("Conv", ["image", w.normal("w1", 8, 1, 3, 3), w.normal("b1", 8)], ["c"], pads=[1, 1, 1, 1], name="conv"),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["p", "rows"], ["columns"]),
        node("Transpose", ["columns"], ["steps"], perm=[0, 2, 1]),
        node(
            "MatMul", ["steps", w.put("w2", 3 * w.rng.standard_normal((64, 7)).astype(np.float32))], ["l"], name="head"
        ),
        node("Softmax", ["l"], ["probs"], axis=-1),
    ]
    inputs, outputs = [value("image", F, ["N", 1, 16, 24])], [value("probs", F, ["N", 12, 7])]

    def draw(n: int, seed: int) -> Arrays:
        return {"pixels": np.random.default_rng(seed).integers(0, 256, (n, 1, 16, 24)).astype(np.uint8)}

    return Case(
        model_of(nodes, inputs, outputs, w),
        draw,
        lambda a, rows: {"image": a["pixels"][rows].astype(np.float32) * np.float32(1 / 255)},
        ctc_exact,
        {"name": "ctc_sequence_accuracy", "blank": 0, "pad": -1},
        texts,
        data={"inputs": {"image": {"from": "pixels", "dtype": "float32", "scale": 1 / 255}}},
    )


def greedy(output: Array) -> list[list[int]]:
    """Greedy CTC: repeats merged, blanks (0) removed."""
    read = []
    for row in output.argmax(-1):
        keep = np.concatenate([[True], row[1:] != row[:-1]]) & (row != 0)
        read.append(row[keep].tolist())
    return read


def texts(output: Array) -> Array:
    """What the model reads, padded with -1; one in ten with another first character."""
    read = greedy(output)
    out = np.full((len(read), 12), -1, np.int64)
    for i, text in enumerate(read):
        out[i, : len(text)] = text
    out[::10, 0] = out[::10, 0] % 6 + 1
    return out


def ctc_exact(output: Array, labels: Array) -> float:
    """Share of texts read without an error."""
    return float(np.mean([p == t[t >= 0].tolist() for p, t in zip(greedy(output), labels, strict=True)]))


def segmenter(flat: bool) -> Case:
    """A probability map [N,1,8,8] beside a second output; labels uint8 0/1 as maps or flattened."""
    w = Weights(21)
    nodes = [
        node("Conv", ["image", w.normal("w1", 8, 3, 3, 3), w.normal("b1", 8)], ["c1"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", w.put("g", np.ones(8, np.float32)), w.normal("bb", 8),
                                    w.put("m", np.zeros(8, np.float32)), w.put("v", np.ones(8, np.float32))], ["n1"]),
        node("LeakyRelu", ["n1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", ["p1", w.normal("w2", 8, 1, 2, 2), w.normal("b2", 1)], ["u"],
             kernel_shape=[2, 2], strides=[2, 2]),
        node("Sigmoid", ["u"], ["mask"]),
        node("GlobalAveragePool", ["r1"], ["features"]),
    ]  # fmt: skip
    outputs = [value("features", F, ["batch", 8, 1, 1]), value("mask", F, ["N", 1, 8, 8])]

    def label(output: Array) -> Array:
        truth = (output > 0.45).astype(np.uint8)
        truth[::10] ^= 1
        return truth.reshape(len(truth), -1) if flat else truth.reshape(len(truth), 8, 8)

    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]

    def feed(a: Arrays, rows: Any) -> Arrays:
        channel = (np.array(x, np.float32).reshape(1, 3, 1, 1) for x in (mean, std))
        centre, spread = channel
        return {"image": (a["image"][rows] - centre) / spread}

    return Case(
        model_of(nodes, [value("image", F, ["batch", 3, 8, 8])], outputs, w, opset=13),
        floats(image=(3, 8, 8)),
        feed,
        partial(f1, 0.3),
        {"name": "f1_binary", "threshold": 0.3, "output": "mask"},
        label,
        data={"inputs": {"image": {"mean": mean, "std": std}}},
        output=1,
    )


def channels_last() -> Case:
    """uint8 pixels [N,8,8,3], cast and transposed inside; opset 11, one image a run, top-5 of 12 classes."""
    w = Weights(22)
    nodes = [
        node("Cast", ["pixels"], ["x0"], to=F),
        node("Mul", ["x0", w.put("k", np.float32(1 / 128))], ["x1"]),
        node("Transpose", ["x1"], ["x2"], perm=[0, 3, 1, 2]),
        node("Conv", ["x2", w.normal("w1", 8, 3, 3, 3), w.normal("b1", 8)], ["c1"]),
        node("Clip", ["c1", w.put("lo", np.float32(0)), w.put("hi", np.float32(6))], ["r1"]),
        node("Conv", ["r1", w.normal("w2", 8, 1, 3, 3)], ["c2"], group=8),
        node("ReduceMean", ["c2"], ["g"], axes=[2, 3], keepdims=0),
        node("Gemm", ["g", w.normal("w3", 12, 8), w.normal("b3", 12)], ["logits"], transB=1),
        node("Softmax", ["logits"], ["scores:0"]),
    ]
    model = model_of(nodes, [value("pixels", U8, [1, 8, 8, 3])], [value("scores:0", F, [1, 12])], w, opset=11)

    def draw(n: int, seed: int) -> Arrays:
        return {"pixels": np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)}

    def top5(output: Array, labels: Array) -> float:
        return float(np.mean([t in np.argsort(row)[-5:] for row, t in zip(output, labels, strict=True)]))

    def label(output: Array) -> Array:
        labels = output.argmax(-1)
        labels[::10] = output[::10].argmin(-1)
        return labels

    return Case(model, draw, same("pixels"), top5, "top5_accuracy", label)


# ---- sequences -----------------------------------------------------------------------------------


def _lstm(w: Weights, name: str, width: int, hidden: int, layers: int = 1) -> list[str]:
    for part, shape in (
        ("w", (layers, 4 * hidden, width)),
        ("r", (layers, 4 * hidden, hidden)),
        ("b", (layers, 8 * hidden)),
    ):
        w.put(f"{name}_{part}", (0.3 * w.rng.standard_normal(shape)).astype(np.float32))
    return [f"{name}_{part}" for part in "wrb"]


def _rate_branch(name: str, seed: int) -> onnx.GraphProto:
    rng = np.random.default_rng(seed)
    weight = numpy_helper.from_array((rng.standard_normal((64, 32)) / 8).astype(np.float32), f"{name}_w")
    nodes = [node("MatMul", ["input", f"{name}_w"], [f"{name}_m"]), node("Relu", [f"{name}_m"], [f"{name}_out"])]
    return helper.make_graph(nodes, name, [], [value(f"{name}_out", F, ["N", 32])], [weight])


def voice(kind: str) -> Case:
    """A voice-activity detector: an If on the rate, a state [2,N,128] in and out, sr int64 without samples.

    ``constant``: state and rate from the spec. ``stored``: both as arrays without the sample dimension.
    """
    w = Weights(23)
    parts = _lstm(w, "lstm", 32, 128)
    w.put("zero", np.int64(0))
    w.put("one", np.int64(1))
    w.put("axis0", np.array([0], np.int64))
    nodes = [
        node("Equal", ["sr", w.put("rate", np.int64(16000))], ["is_fast"]),
        node("If", ["is_fast"], ["features"], then_branch=_rate_branch("fast", 1), else_branch=_rate_branch("slow", 2)),
        node("Unsqueeze", ["features", "axis0"], ["steps"]),
        node("Gather", ["state", "zero"], ["h0"]),
        node("Gather", ["state", "one"], ["c0"]),
        node("Unsqueeze", ["h0", "axis0"], ["h"]),
        node("Unsqueeze", ["c0", "axis0"], ["c"]),
        node("LSTM", ["steps", *parts, "", "h", "c"], ["", "hn", "cn"], hidden_size=128),
        node("Concat", ["hn", "cn"], ["stateN"], axis=0),
        node("Squeeze", ["hn", "axis0"], ["last"]),
        node("Gemm", ["last", w.put("w_out", w.rng.standard_normal((128, 1)).astype(np.float32))], ["raw"]),
        node("Sigmoid", ["raw"], ["output"]),
    ]
    inputs = [value("input", F, ["N", "T"]), value("state", F, [2, "N", 128]), value("sr", I64, [])]
    outputs = [value("output", F, ["N", 1]), value("stateN", F, [2, "N", 128])]
    model = model_of(nodes, inputs, outputs, w, opset=16)

    def draw(n: int, seed: int) -> Arrays:
        made = floats(input=(64,))(n, seed)
        if kind == "stored":
            made |= {"state": np.full((2, 1, 128), 0.1, np.float32), "sr": np.array(16000)}
        return made

    def feed(a: Arrays, rows: Any) -> Arrays:
        state = np.full((2, 1, 128), 0.1 if kind == "stored" else 0.0, np.float32)
        return {"input": a["input"][rows], "state": state, "sr": np.array(16000, np.int64)}

    def label(output: Array) -> Array:
        truth = (output[:, 0] > 0.5).astype(np.int64)
        return wrong_now_and_then(truth, 2)

    constants = {
        "state": {"constant": 0.0, "shape": [2, 1, 128], "dtype": "float32"},
        "sr": {"constant": 16000, "shape": [], "dtype": "int64"},
    }
    data = {} if kind == "stored" else {"inputs": constants}
    return Case(model, draw, feed, partial(f1, 0.5), {"name": "f1_binary", "threshold": 0.5}, label, data)


def frames() -> Case:
    """One row is one run: x [T,1,6] with h, c [1,1,128] as constants of the spec -> probabilities [T,1]."""
    w = Weights(24)
    parts = _lstm(w, "lstm", 6, 128)
    w.put("axis12", np.array([1, 2], np.int64))
    nodes = [
        node("LSTM", ["x", *parts, "", "h", "c"], ["y4", "hn", "cn"], hidden_size=128),
        node("Squeeze", ["y4", "axis12"], ["y"]),
        node("Gemm", ["y", w.normal("w_out", 128, 1), w.normal("b_out", 1)], ["raw"]),
        node("Sigmoid", ["raw"], ["prob"]),
    ]
    state = [1, 1, 128]
    inputs = [value("x", F, ["T", 1, 6]), value("h", F, state), value("c", F, state)]
    outputs = [value("prob", F, ["T", 1]), value("hn", F, state), value("cn", F, state)]
    zeros = np.zeros(state, np.float32)
    constant = {"constant": 0.0, "shape": state, "dtype": "float32"}

    def label(output: Array) -> Array:
        truth = (output[..., 0] > 0.5).astype(np.int64)
        truth[:, ::10] ^= 1
        return truth

    return Case(
        model_of(nodes, inputs, outputs, w),
        floats(x=(15, 1, 6)),
        lambda a, i: {"x": a["x"][i], "h": zeros, "c": zeros},
        partial(f1, 0.5),
        "f1_binary",
        label,
        data={"batched": False, "inputs": {"h": constant, "c": constant}},
        one_row_a_run=True,
    )


def tagger() -> Case:
    """int32 tokens [N,S] and a bool mask -> a class a token through a two-way GRU; padded labels."""
    w = Weights(25)
    for part, shape in (("w", (2, 36, 16)), ("r", (2, 36, 12)), ("b", (2, 72))):
        w.put(part, (0.5 * w.rng.standard_normal(shape)).astype(np.float32))
    w.put("shape", np.array([0, 0, 24], np.int64))
    w.put("axis2", np.array([2], np.int64))
    nodes = [
        node("Gather", [w.put("table", w.rng.standard_normal((30, 16)).astype(np.float32)), "tokens"], ["x0"]),
        node("Cast", ["mask"], ["m0"], to=F),
        node("Unsqueeze", ["m0", "axis2"], ["m1"]),
        node("Mul", ["x0", "m1"], ["x1"]),
        node("Transpose", ["x1"], ["x2"], perm=[1, 0, 2]),
        node("GRU", ["x2", "w", "r", "b"], ["y0"], hidden_size=12, direction="bidirectional", linear_before_reset=1),
        node("Transpose", ["y0"], ["y1"], perm=[2, 0, 1, 3]),
        node("Reshape", ["y1", "shape"], ["y2"]),
        node("MatMul", ["y2", w.normal("w_out", 24, 5)], ["tags"]),
    ]
    inputs = [value("tokens", I32, ["batch", "length"]), value("mask", B, ["batch", "length"])]

    def draw(n: int, seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {
            "tokens": rng.integers(0, 30, (n, 9)).astype(np.int32),
            "mask": np.arange(9) < rng.integers(3, 10, (n, 1)),
        }

    def label(output: Array) -> Array:
        labels = best_class(output)
        labels[:, 7:] = -1
        return labels

    def tokens_right(output: Array, labels: Array) -> float:
        return float((output.argmax(-1) == labels)[labels != -1].mean())

    model = model_of(nodes, inputs, [value("tags", F, ["batch", "length", 5])], w, opset=14)
    return Case(model, draw, same("tokens", "mask"), tokens_right, "token_accuracy", label)


def counter() -> Case:
    """A Loop that multiplies by a weight of the graph around it three times: x [?,6] -> y [?]."""
    w = Weights(26)
    w.normal("w_loop", 6, 6)
    body = helper.make_graph(
        [
            node("MatMul", ["v", "w_loop"], ["v1"]),
            node("Tanh", ["v1"], ["v2"]),
            node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [value("i", I64, []), value("go", B, []), value("v", F, None)],
        [value("go_on", B, []), value("v2", F, None)],
    )
    nodes = [
        node("Loop", [w.put("three", np.int64(3)), w.put("yes", np.array(True)), "x"], ["looped"], body=body),
        node("Gemm", ["looped", w.normal("w1", 6, 1), w.normal("b1", 1)], ["y0"]),
        node("Squeeze", ["y0", w.put("axis1", np.array([1], np.int64))], ["y"]),
    ]
    model = model_of(nodes, [value("x", F, [None, 6])], [value("y", F, [None])], w)
    return Case(model, floats(x=(6,)), same("x"), r2, "r2", noisy)


# ---- tables --------------------------------------------------------------------------------------


def _ml_model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    plain: bool = False,
) -> ModelProto:
    imports = [helper.make_opsetid("ai.onnx.ml", 3)] + ([] if plain else [helper.make_opsetid("", 15)])
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=imports, ir_version=8)


def trees() -> Case:
    """A TreeEnsembleRegressor as skl2onnx writes them, no other operator set: x [N,4] -> variable [N,1]."""
    rng = np.random.default_rng(27)
    tree: dict[str, list[Any]] = {k: [] for k in ("tree", "node", "feature", "value", "mode", "true", "false")}
    leaves: list[tuple[int, int, float]] = []
    for t in range(8):
        for i in range(7):
            inner = i < 3
            row = (t, i, int(rng.integers(4)) if inner else 0, float(rng.normal(0, 0.5)) if inner else 0.0,
                   "BRANCH_LEQ" if inner else "LEAF", 2 * i + 1 if inner else 0, 2 * i + 2 if inner else 0)  # fmt: skip
            for key, item in zip(tree, row, strict=True):
                tree[key].append(item)
            if not inner:
                leaves.append((t, i, float(rng.normal())))
    trees_node = node(
        "TreeEnsembleRegressor", ["x"], ["variable"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=tree["tree"], nodes_nodeids=tree["node"], nodes_featureids=tree["feature"],
        nodes_values=tree["value"], nodes_modes=tree["mode"],
        nodes_truenodeids=tree["true"], nodes_falsenodeids=tree["false"],
        target_treeids=[a for a, _, _ in leaves], target_nodeids=[b for _, b, _ in leaves],
        target_ids=[0] * len(leaves), target_weights=[c for _, _, c in leaves],
    )  # fmt: skip
    model = _ml_model([trees_node], [value("x", F, [None, 4])], [value("variable", F, [None, 1])], plain=True)

    def draw(n: int, seed: int) -> Arrays:
        return {"x": np.random.default_rng(seed).normal(size=(n, 4))}  # what pandas stores: float64

    def feed(a: Arrays, rows: Any) -> Arrays:
        return {"x": a["x"][rows].astype(np.float32)}

    data = {"inputs": {"x": {"dtype": "float32"}}}
    return Case(model, draw, feed, r2, "r2", noisy, data, suffix=".parquet")


def linear(kind: str) -> Case:
    """Scaler and LinearClassifier over float64 columns: label and probabilities [N,3].

    ``label``: the int64 label output is scored. ``probabilities``: the second output, chosen by name, beside a
    text label. ``maps``: the second output is a sequence of maps (ZipMap), which nothing but the label can score.
    """
    rng = np.random.default_rng(28)
    names: dict[str, Any] = {"classlabels_ints": [0, 1, 2]}
    text = kind == "probabilities"
    if text:
        names = {"classlabels_strings": ["cat", "dog", "fox"]}
    nodes = [
        node("Concat", ["age", "height", "more"], ["joined"], axis=1),
        node("Cast", ["joined"], ["as_float"], to=F),
        node("Scaler", ["as_float"], ["scaled"], domain="ai.onnx.ml", offset=[0.1] * 6, scale=[1.5] * 6),
        node("LinearClassifier", ["scaled"], ["output_label", "raw"], domain="ai.onnx.ml", multi_class=1,
             post_transform="SOFTMAX", coefficients=rng.normal(size=18).tolist(), intercepts=[0.0, 0.1, -0.1], **names),
        node("Normalizer", ["raw"], ["output_probability"], domain="ai.onnx.ml", norm="L1"),
    ]  # fmt: skip
    outputs = [value("output_label", STRING if text else I64, [None]), value("output_probability", F, [None, 3])]
    if kind == "maps":
        nodes.append(
            node("ZipMap", ["output_probability"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
        )
        map_type = helper.make_map_type_proto(I64, helper.make_tensor_type_proto(F, []))
        outputs[1] = helper.make_value_info("maps", helper.make_sequence_type_proto(map_type))
    inputs = [value("age", F64, [None, 1]), value("height", F64, [None, 1]), value("more", F64, ["n", 4])]

    def draw(n: int, seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {"age": rng.normal(size=n), "height": rng.normal(size=(n, 1)), "more": rng.normal(size=(n, 4))}

    def feed(a: Arrays, rows: Any) -> Arrays:
        return {"age": a["age"][rows].reshape(-1, 1), "height": a["height"][rows], "more": a["more"][rows]}

    if text:
        metric: Any = {"name": "accuracy", "output": "output_probability"}
        return Case(_ml_model(nodes, inputs, outputs), draw, feed, accuracy, metric, best_class, output=1)

    def right(output: Array, labels: Array) -> float:
        return float((output == labels).mean())

    return Case(_ml_model(nodes, inputs, outputs), draw, feed, right, "accuracy", lambda y: wrong_now_and_then(y, 3))


def categories() -> Case:
    """Text and int64 columns, one-hot encoded inside: accuracy of a binary score with a threshold."""
    w = Weights(29)
    nodes = [
        node("OneHotEncoder", ["colour"], ["h0"], domain="ai.onnx.ml", cats_strings=["red", "green", "blue"], zeros=1),
        node("OneHotEncoder", ["size"], ["h1"], domain="ai.onnx.ml", cats_int64s=[1, 2, 3], zeros=1),
        node("Reshape", ["h0", w.put("three", np.array([-1, 3], np.int64))], ["f0"]),
        node("Reshape", ["h1", "three"], ["f1"]),
        node("Concat", ["f0", "f1", "x"], ["joined"], axis=1),
        node("MatMul", ["joined", w.normal("w1", 8, 8)], ["m"]),
        node("Relu", ["m"], ["r"]),
        node("Gemm", ["r", w.normal("w2", 8, 1), w.normal("b2", 1)], ["s"]),
        node("Sigmoid", ["s"], ["p"]),
    ]
    inputs = [value("colour", STRING, [None, 1]), value("size", I64, [None, 1]), value("x", F, [None, 2])]
    graph = helper.make_graph(nodes, "g", inputs, [value("p", F, [None, 1])], w.tensors)
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)

    def draw(n: int, seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        colour, size = rng.choice(["red", "green", "blue"], (n, 1)), rng.integers(1, 4, (n, 1))
        # A third column keeps rows apart: equal ones would lie in two files.
        return {"colour": colour, "size": size, "x": rng.normal(size=(n, 2)).astype(np.float32)}

    def feed(a: Arrays, rows: Any) -> Arrays:
        return {"colour": a["colour"][rows].astype(object), **same("size", "x")(a, rows)}

    def right(output: Array, labels: Array) -> float:
        return float(((output[:, 0] > 0.5) == labels).mean())

    return Case(model, draw, feed, right, "accuracy", lambda y: wrong_now_and_then((y[:, 0] > 0.5).astype(np.int64), 2))


def mixed_ranks() -> Case:
    """image float16 [N,2,4,4], flags bool [N,3], bytes uint8 [N,5], age int32 [N], weight double [N,1] -> [N,4]."""
    w = Weights(30)
    nodes = [
        node("Cast", ["image"], ["i0"], to=F),
        node("Conv", ["i0", w.normal("w1", 4, 2, 3, 3), w.normal("b1", 4)], ["i1"]),
        node("Flatten", ["i1"], ["i2"]),
        *(node("Cast", [name], [f"{name}_f"], to=F) for name in ("flags", "bytes", "age", "weight")),
        node("Unsqueeze", ["age_f", w.put("axis1", np.array([1], np.int64))], ["age_c"]),
        node("Concat", ["i2", "flags_f", "bytes_f", "age_c", "weight_f"], ["x"], axis=1),
        node("Gemm", ["x", w.normal("w2", 26, 4), w.normal("b2", 4)], ["y"]),
    ]
    inputs = [
        value("image", F16, ["N", 2, 4, 4]), value("flags", B, ["N", 3]), value("bytes", U8, ["N", 5]),
        value("age", I32, ["N"]), value("weight", F64, ["N", 1]),
    ]  # fmt: skip

    def draw(n: int, seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {
            "image": rng.normal(size=(n, 2, 4, 4)).astype(np.float32),
            "flags": rng.random((n, 3)) < 0.5,
            "bytes": rng.integers(0, 4, (n, 5)).astype(np.uint8),
            "age": rng.integers(0, 3, n).astype(np.int16),
            "weight": rng.normal(size=(n, 1)),
        }

    def feed(a: Arrays, rows: Any) -> Arrays:
        made = same("flags", "bytes", "weight")(a, rows)
        return {**made, "image": a["image"][rows].astype(np.float16), "age": a["age"][rows].astype(np.int32)}

    return Case(
        model_of(nodes, inputs, [value("y", F, ["N", 4])], w), draw, feed, accuracy, "accuracy", best_class,
        data={"inputs": {"image": {"dtype": "float16"}}},
    )  # fmt: skip


# ---- numbers other than float32 ------------------------------------------------------------------


def _perceptron(w: Weights, dtype: Any) -> list[onnx.NodeProto]:
    for name, shape in (("w1", (12, 32)), ("b1", (32,)), ("w2", (32, 4)), ("b2", (4,))):
        w.put(name, (0.4 * w.rng.standard_normal(shape)).astype(dtype))
    return [
        node("Gemm", ["x", "w1", "b1"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]


def half() -> Case:
    """float16 from end to end."""
    w = Weights(31)
    nodes = _perceptron(w, np.float16)
    model = model_of(nodes, [value("x", F16, ["N", 12])], [value("y", F16, ["N", 4])], w)

    def draw(n: int, seed: int) -> Arrays:
        return {"x": floats(x=(12,))(n, seed)["x"].astype(np.float16)}

    return Case(model, draw, same("x"), accuracy, "accuracy", best_class)


def one_inside() -> Case:
    """Exported with a free batch dimension that a Reshape to one row holds fast inside."""
    w = Weights(37)
    nodes = [node("Reshape", ["x0", w.put("row", np.array([1, 12], np.int64))], ["x"]), *_perceptron(w, np.float32)]
    model = model_of(nodes, [value("x0", F, ["N", 3, 4])], [value("y", F, ["N", 4])], w)
    return Case(model, floats(x0=(3, 4)), same("x0"), accuracy, "f1_micro", best_class)


def state_first() -> Case:
    """A state [8] without samples comes before the scores, which the metric names; a fixed batch of 10."""
    w = Weights(38)
    w.normal("w1", 6, 8)
    nodes = [
        node("MatMul", ["x", "w1"], ["h"]),
        node("Tanh", ["h"], ["t"]),
        node("ReduceMean", ["t"], ["state"], axes=[0], keepdims=0),
        node("MatMul", ["t", w.normal("w2", 8, 3)], ["scores"]),
    ]
    outputs = [value("state", F, [8]), value("scores", F, [10, 3])]
    model = model_of(nodes, [value("x", F, [10, 6])], outputs, w, opset=13)
    metric = {"name": "accuracy", "output": "scores"}
    return Case(model, floats(x=(6,)), same("x"), accuracy, metric, best_class, output=1, batch=10)


def double() -> Case:
    """float64 from end to end, as scikit-learn's graphs may be; the metric is a user's function."""
    w = Weights(32)
    nodes = _perceptron(w, np.float64)
    model = model_of(nodes, [value("x", F64, ["N", 12])], [value("y", F64, ["N", 4])], w)

    def draw(n: int, seed: int) -> Arrays:
        return {"x": np.random.default_rng(seed).normal(size=(n, 12))}

    source = "def score(outputs, labels):\n    return float((outputs['y'].argmax(-1) == labels).mean())\n"
    metric = {"function": "own.py:score", "direction": "maximize"}
    return Case(model, draw, same("x"), accuracy, metric, best_class, files={"own.py": source})


def quantized(kind: str) -> Case:
    """Quantized before: ``QDQ``, ``QOperator`` (both static, a CNN) or ``dynamic`` (a perceptron)."""
    import tempfile

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    from tests import models

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"image": models.samples(models.cnn(), 8, seed=s)["image"]} for s in range(2)])

        def get_next(self) -> Any:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        if kind == "dynamic":
            w = Weights(33)
            nodes = _perceptron(w, np.float32)
            onnx.save(model_of(nodes, [value("x", F, ["N", 12])], [value("y", F, ["N", 4])], w), source)
            quantize_dynamic(source, target)
            return Case(onnx.load(target), floats(x=(12,)), same("x"), accuracy, "accuracy", best_class)
        onnx.save(models.cnn(), source)
        quantize_static(source, target, Reader(), quant_format=QuantFormat[kind])
        return Case(onnx.load(target), floats(image=(1, 8, 8)), same("image"), accuracy, "accuracy", best_class)


# ---- around the model ----------------------------------------------------------------------------


def hooked() -> Case:
    """Raw rows made into inputs by preprocess and logits into probabilities by postprocess; no inputs mapping."""
    w = Weights(34)
    nodes = _perceptron(w, np.float32)
    model = model_of(nodes, [value("x", F, ["N", 12])], [value("y", F, ["N", 4])], w)
    source = (
        "import numpy as np\n\n\n"
        "def preprocess(raw):\n"
        "    joined = np.concatenate([raw['a'], raw['b']], axis=-1)\n"
        "    return {'x': np.log1p(joined).astype(np.float32)}\n\n\n"
        "def postprocess(outputs):\n"
        "    e = np.exp(outputs['y'] - outputs['y'].max(-1, keepdims=True))\n"
        "    return {'p': e / e.sum(-1, keepdims=True)}\n"
    )

    def draw(n: int, seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return {"a": rng.integers(0, 9, (n, 4)), "b": rng.integers(0, 9, (n, 8))}

    def feed(a: Arrays, rows: Any) -> Arrays:
        return {"x": np.log1p(np.concatenate([a["a"][rows], a["b"][rows]], axis=-1)).astype(np.float32)}

    def log_loss(output: Array, labels: Array) -> float:
        x = output.astype(np.float64)
        x = x - x.max(-1, keepdims=True)
        log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
        return float(-log_p[np.arange(len(labels)), labels].mean())

    return Case(
        model, draw, feed, log_loss, {"name": "log_loss", "output": "p"}, best_class,
        data={"preprocess": "hooks.py:preprocess", "postprocess": "hooks.py:postprocess"}, files={"hooks.py": source},
    )  # fmt: skip


def unlabelled() -> Case:
    """No label array at all: agreement with the model as given; parquet with nested list columns."""
    w = Weights(35)
    nodes = [
        node("Conv", ["image", w.normal("w1", 8, 1, 3, 3), w.normal("b1", 8)], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("GlobalMaxPool", ["r"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("MatMul", ["f", w.normal("w2", 8, 5)], ["y"]),
    ]
    model = model_of(nodes, [value("image", F, ["N", 1, 6, 6])], [value("y", F, ["N", 5])], w)
    return Case(
        model, floats(image=(1, 6, 6)), same("image"), lambda out, _: 1.0, "agreement", None, suffix=".parquet"
    )  # fmt: skip


def local_function() -> Case:
    """A node of a model-local function, and an output that is a plain copy of the input."""
    w = Weights(36)
    w.normal("w1", 6, 10)
    w.normal("w2", 10, 3)
    body = [node("MatMul", ["a", "b"], ["c"]), node("Relu", ["c"], ["d"])]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Dense", ["a", "b"], ["d"], body, imports[:1])
    nodes = [
        node("Dense", ["x", "w1"], ["h"], domain="local"),
        node("MatMul", ["h", "w2"], ["y"]),
        node("Identity", ["x"], ["copy"]),
    ]
    outputs = [value("y", F, ["N", 3]), value("copy", F, ["N", 6])]
    graph = helper.make_graph(nodes, "g", [value("x", F, ["N", 6])], outputs, w.tensors)
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)
    return Case(model, floats(x=(6,)), same("x"), accuracy, "f1_micro", best_class)


CASES: Mapping[str, Callable[[], Case]] = {
    "captcha": captcha,
    "segmentation_maps": partial(segmenter, False),
    "segmentation_flat": partial(segmenter, True),
    "channels_last_uint8_opset11": channels_last,
    "voice_constants": partial(voice, "constant"),
    "voice_stored": partial(voice, "stored"),
    "one_row_a_run": frames,
    "tagger": tagger,
    "loop": counter,
    "trees": trees,
    "linear_label": partial(linear, "label"),
    "linear_probabilities": partial(linear, "probabilities"),
    "linear_maps": partial(linear, "maps"),
    "categories": categories,
    "mixed_ranks": mixed_ranks,
    "half": half,
    "double": double,
    "one_inside": one_inside,
    "state_first_fixed_batch": state_first,
    "quantized_qdq": partial(quantized, "QDQ"),
    "quantized_qoperator": partial(quantized, "QOperator"),
    "quantized_dynamic": partial(quantized, "dynamic"),
    "hooks": hooked,
    "unlabelled": unlabelled,
    "local_function": local_function,
}
