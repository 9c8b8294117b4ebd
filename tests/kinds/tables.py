"""Tables: trees, linear models, text columns, inputs of many types."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper

from tests.kinds.case import (
    F16,
    F64,
    I32,
    STRING,
    U8,
    Arrays,
    Case,
    accuracy,
    best_class,
    noisy,
    r2,
    same,
    wrong_now_and_then,
)
from tests.models import I64, Array, B, F, Weights, model_of, node, value


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
