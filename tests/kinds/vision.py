"""Images: characters, masks, pixels as they come from a camera."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tests.kinds.case import (
    U8,
    Arrays,
    Case,
    f1,
    floats,
    same,
)
from tests.models import Array, F, Weights, model_of, node, value


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
