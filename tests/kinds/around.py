"""Around the model: hooks, no labels, functions, batches that a graph can't take."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from tests.kinds.case import (
    Arrays,
    Case,
    accuracy,
    best_class,
    floats,
    perceptron,
    same,
)
from tests.models import Array, F, Weights, model_of, node, value


def hooked() -> Case:
    """Raw rows made into inputs by preprocess and logits into probabilities by postprocess; no inputs mapping."""
    w = Weights(34)
    nodes = perceptron(w, np.float32)
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
    return Case(model, floats(x=(6,)), same("x"), accuracy, "accuracy", best_class)


def one_inside() -> Case:
    """Exported with a free batch dimension that a Reshape to one row holds fast inside."""
    w = Weights(37)
    nodes = [node("Reshape", ["x0", w.put("row", np.array([1, 12], np.int64))], ["x"]), *perceptron(w, np.float32)]
    model = model_of(nodes, [value("x0", F, ["N", 3, 4])], [value("y", F, ["N", 4])], w)
    return Case(model, floats(x0=(3, 4)), same("x0"), accuracy, "accuracy", best_class)


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
