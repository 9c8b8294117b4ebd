"""Sequences: a voice detector with a state, rows that are runs, tokens, a loop."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.kinds.case import (
    I32,
    Arrays,
    Case,
    best_class,
    f1,
    floats,
    mae,
    noisy,
    same,
    wrong_now_and_then,
)
from tests.models import I64, Array, B, F, Weights, model_of, node, value


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
    return Case(model, floats(x=(6,)), same("x"), mae, "mae", noisy)
