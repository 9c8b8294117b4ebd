"""Small ONNX models of many kinds, made without torch, and samples that fit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = npt.NDArray[Any]
F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


class Weights:
    """Initializers with seeded values, named as asked."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: list[TensorProto] = []

    def normal(self, name: str, *shape: int) -> str:
        """A float32 tensor, scaled to keep activations near 1."""
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        return self.put(name, (self.rng.standard_normal(shape) / np.sqrt(max(fan_in, 1))).astype(np.float32))

    def put(self, name: str, value: Any) -> str:
        """Any array under ``name``."""
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def value(name: str, dtype: int, shape: Sequence[int | str | None] | None) -> ValueInfoProto:
    """A graph input or output."""
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    weights: Weights,
    opset: int = 17,
    ms: bool = False,
) -> ModelProto:
    """A checked model with fixed names, opset and IR version."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights.tensors)
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("com.microsoft", 1)] if ms else [])
    model = helper.make_model(graph, opset_imports=imports, ir_version=6 if opset < 13 else 8)
    if not ms:
        onnx.checker.check_model(model, full_check=True)
    return model


def cnn(batch: int | str = "N", opset: int = 17) -> ModelProto:
    """Conv-Relu-MaxPool-Conv-Relu-GlobalAveragePool-Gemm on image float32 [N,1,8,8] -> logits [N,4]."""
    w = Weights()
    nodes = [
        node("Conv", ["image", w.normal("w1", 8, 1, 3, 3), w.normal("b1", 8)], ["c1"], name="conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", w.normal("w2", 16, 8, 3, 3), w.normal("b2", 16)], ["c2"], name="conv2", pads=[1] * 4),
        node("Relu", ["c2"], ["r2"]),
        node("GlobalAveragePool", ["r2"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", w.normal("w3", 16, 4), w.normal("b3", 4)], ["logits"], name="head"),
    ]
    return model_of(nodes, [value("image", F, [batch, 1, 8, 8])], [value("logits", F, [batch, 4])], w, opset)


def _layer_norm(w: Weights, x: str, out: str, width: int) -> list[NodeProto]:
    scale, bias = w.put(f"{out}_s", np.ones(width, np.float32)), w.put(f"{out}_b", np.zeros(width, np.float32))
    return [node("LayerNormalization", [x, scale, bias], [out], axis=-1, epsilon=1e-5)]


def _heads(w: Weights, name: str, x: str, width: int, perm: list[int]) -> list[NodeProto]:
    return [
        node("MatMul", [x, w.normal(f"w_{name}", width, width)], [f"{name}0"], name=f"{name}_proj"),
        node("Add", [f"{name}0", w.normal(f"bias_{name}", width)], [f"{name}1"]),
        node("Reshape", [f"{name}1", "head_shape"], [f"{name}2"]),
        node("Transpose", [f"{name}2"], [f"{name}h"], perm=perm),
    ]


def encoder(layers: int = 1) -> ModelProto:
    """A small text encoder: input_ids, attention_mask int64 [N,S] -> logits float32 [N,3]."""
    width, heads, vocab = 32, 2, 40
    w = Weights(1)
    w.put("head_shape", np.array([0, 0, heads, width // heads], np.int64))
    w.put("flat_shape", np.array([0, 0, width], np.int64))
    w.put("half", np.float32(0.5))
    w.put("one", np.float32(1.0))
    w.put("root2", np.float32(np.sqrt(2)))
    w.put("scale", np.float32(1 / np.sqrt(width // heads)))
    w.put("lowest", np.float32(-10000.0))
    w.put("axes12", np.array([1, 2], np.int64))
    w.put("first", np.int64(0))
    nodes = [
        node("Gather", [w.normal("embedding", vocab, width), "input_ids"], ["x0"], name="embed"),
        node("Unsqueeze", ["attention_mask", "axes12"], ["m0"]),
        node("Cast", ["m0"], ["m1"], to=F),
        node("Sub", ["one", "m1"], ["m2"]),
        node("Mul", ["m2", "lowest"], ["mask"]),
    ]
    for i in range(layers):
        nodes += _encoder_layer(w, i, width)
    nodes += [
        node("Gather", [f"x{layers}", "first"], ["pooled"], axis=1),
        node("Gemm", ["pooled", w.normal("w_head", width, 3), w.normal("b_head", 3)], ["logits"], name="head"),
    ]
    inputs = [value("input_ids", I64, ["N", "S"]), value("attention_mask", I64, ["N", "S"])]
    return model_of(nodes, inputs, [value("logits", F, ["N", 3])], w)


def _encoder_layer(w: Weights, i: int, width: int) -> list[NodeProto]:
    p, x = f"l{i}_", f"x{i}"
    return [
        *_heads(w, f"{p}q", x, width, [0, 2, 1, 3]),
        *_heads(w, f"{p}k", x, width, [0, 2, 3, 1]),
        *_heads(w, f"{p}v", x, width, [0, 2, 1, 3]),
        node("MatMul", [f"{p}qh", f"{p}kh"], [f"{p}s0"], name=f"{p}scores"),
        node("Mul", [f"{p}s0", "scale"], [f"{p}s1"]),
        node("Add", [f"{p}s1", "mask"], [f"{p}s2"]),
        node("Softmax", [f"{p}s2"], [f"{p}s3"], axis=-1),
        node("MatMul", [f"{p}s3", f"{p}vh"], [f"{p}a0"], name=f"{p}context"),
        node("Transpose", [f"{p}a0"], [f"{p}a1"], perm=[0, 2, 1, 3]),
        node("Reshape", [f"{p}a1", "flat_shape"], [f"{p}a2"]),
        node("MatMul", [f"{p}a2", w.normal(f"{p}w_o", width, width)], [f"{p}a3"], name=f"{p}out"),
        node("Add", [f"{p}a3", x], [f"{p}a4"]),
        *_layer_norm(w, f"{p}a4", f"{p}n1", width),
        node("MatMul", [f"{p}n1", w.normal(f"{p}w_up", width, 2 * width)], [f"{p}f0"], name=f"{p}up"),
        node("Div", [f"{p}f0", "root2"], [f"{p}f1"]),
        node("Erf", [f"{p}f1"], [f"{p}f2"]),
        node("Add", [f"{p}f2", "one"], [f"{p}f3"]),
        node("Mul", [f"{p}f0", f"{p}f3"], [f"{p}f4"]),
        node("Mul", [f"{p}f4", "half"], [f"{p}f5"]),
        node("MatMul", [f"{p}f5", w.normal(f"{p}w_down", 2 * width, width)], [f"{p}f6"], name=f"{p}down"),
        node("Add", [f"{p}f6", f"{p}n1"], [f"{p}f7"]),
        *_layer_norm(w, f"{p}f7", f"x{i + 1}", width),
    ]


def detector() -> ModelProto:
    """A voice activity detector's shape: If on the sampling rate, a state in and out.

    x float32 [N,256], h float32 [1,N,16], sr int64 [] -> prob float32 [N,1], hn float32 [1,N,16].
    The outer weight ``shared`` is used by the main graph and by both branches.
    """
    w = Weights(2)
    w.put("rate", np.int64(16000))
    w.normal("shared", 32, 32)
    branches = [_branch("fast", w.rng, 32), _branch("slow", w.rng, 32)]
    for name, shape in (("gru_w", (1, 48, 32)), ("gru_r", (1, 48, 16)), ("gru_b", (1, 96))):
        w.put(name, (w.rng.standard_normal(shape) * 0.2).astype(np.float32))
    w.put("axis0", np.array([0], np.int64))
    nodes = [
        node("Equal", ["sr", "rate"], ["is_fast"]),
        node("If", ["is_fast"], ["features"], then_branch=branches[0], else_branch=branches[1]),
        node("MatMul", ["features", "shared"], ["mixed"], name="mix"),
        node("Unsqueeze", ["mixed", "axis0"], ["sequence"]),
        node("GRU", ["sequence", "gru_w", "gru_r", "gru_b", "", "h"], ["", "hn"], hidden_size=16),
        node("Squeeze", ["hn", "axis0"], ["last"]),
        node("Gemm", ["last", w.normal("w_out", 16, 1), w.normal("b_out", 1)], ["raw"], name="out"),
        node("Sigmoid", ["raw"], ["prob"]),
    ]
    inputs = [value("x", F, ["N", 256]), value("h", F, [1, "N", 16]), value("sr", I64, [])]
    return model_of(nodes, inputs, [value("prob", F, ["N", 1]), value("hn", F, [1, "N", 16])], w)


def _branch(name: str, rng: np.random.Generator, width: int) -> GraphProto:
    weight = numpy_helper.from_array((rng.standard_normal((256, width)) / 16).astype(np.float32), f"{name}_w")
    nodes = [
        node("MatMul", ["x", f"{name}_w"], [f"{name}_0"], name=f"{name}_in"),
        node("MatMul", [f"{name}_0", "shared"], [f"{name}_1"], name=f"{name}_mix"),
        node("Tanh", [f"{name}_1"], [f"{name}_2"]),
    ]
    return helper.make_graph(nodes, name, [], [value(f"{name}_2", F, ["N", width])], [weight])


def recurrent() -> ModelProto:
    """An LSTM without batching: x float32 [T,1,6] -> y float32 [T,1,8]."""
    w = Weights(3)
    for name, shape in (("w", (1, 32, 6)), ("r", (1, 32, 8)), ("b", (1, 64))):
        w.put(name, (w.rng.standard_normal(shape) * 0.3).astype(np.float32))
    w.put("axis1", np.array([1], np.int64))
    nodes = [
        node("LSTM", ["x", "w", "r", "b"], ["y4"], hidden_size=8, name="lstm"),
        node("Squeeze", ["y4", "axis1"], ["y"]),
    ]
    return model_of(nodes, [value("x", F, ["T", 1, 6])], [value("y", F, ["T", 1, 8])], w)


def upsampler() -> ModelProto:
    """ConvTranspose and Resize, two outputs: image float32 [N,2,4,4] -> mask [N,1,8,8], big [N,2,8,8]."""
    w = Weights(4)
    w.put("scales", np.array([1, 1, 2, 2], np.float32))
    nodes = [
        node(
            "ConvTranspose", ["image", w.normal("w", 2, 1, 2, 2), w.normal("b", 1)], ["mask"],
            name="up", kernel_shape=[2, 2], strides=[2, 2],
        ),
        node("Resize", ["image", "", "scales"], ["big"], mode="nearest"),
    ]  # fmt: skip
    outputs = [value("mask", F, ["N", 1, 8, 8]), value("big", F, ["N", 2, 8, 8])]
    return model_of(nodes, [value("image", F, ["N", 2, 4, 4])], outputs, w)


def constant_weights() -> ModelProto:
    """A perceptron whose weights are Constant nodes: x float32 [N,8] -> y float32 [N,4]."""
    w = Weights(5)
    w.normal("w1", 8, 16)
    w.normal("w2", 16, 4)
    made = [node("Constant", [], [t.name], value=t) for t in w.tensors]
    nodes = [*made, node("MatMul", ["x", "w1"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "w2"], ["y"])]
    return model_of(nodes, [value("x", F, ["N", 8])], [value("y", F, ["N", 4])], Weights())


def weights_as_inputs() -> ModelProto:
    """A perceptron whose initializers are graph inputs too (IR 3 style): x float32 [N,8] -> y float32 [N,4]."""
    w = Weights(6)
    nodes = [
        node("MatMul", ["x", w.normal("w1", 8, 16)], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", w.normal("w2", 16, 4), w.normal("b2", 4)], ["y"]),
    ]
    inputs = [value("x", F, ["N", 8]), value("w1", F, [8, 16]), value("w2", F, [16, 4]), value("b2", F, [4])]
    return model_of(nodes, inputs, [value("y", F, ["N", 4])], w, opset=13)


def half_weights() -> ModelProto:
    """Weights stored as float16 behind Cast nodes, one unused input: x [N,8], unused [N,1] -> y [N,4]."""
    w = Weights(7)
    w.put("w1h", (w.rng.standard_normal((8, 16)) / 3).astype(np.float16))
    w.put("w2h", (w.rng.standard_normal((16, 4)) / 4).astype(np.float16))
    nodes = [
        node("Cast", ["w1h"], ["w1"], to=F),
        node("Cast", ["w2h"], ["w2"], to=F),
        node("MatMul", ["x", "w1"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w2"], ["y"]),
    ]
    return model_of(nodes, [value("x", F, ["N", 8]), value("unused", F, ["N", 1])], [value("y", F, ["N", 4])], w)


def wide(rows: int = 256, columns: int = 64) -> ModelProto:
    """One large MatMul behind a small one, for block-wise quantization: x float32 [N,16] -> y [N,columns]."""
    w = Weights(8)
    nodes = [
        node("MatMul", ["x", w.normal("w1", 16, rows)], ["h"], name="first"),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", w.normal("w2", rows, columns)], ["y"], name="second"),
    ]
    return model_of(nodes, [value("x", F, ["N", 16])], [value("y", F, ["N", columns])], w)


def qdq() -> ModelProto:
    """A perceptron already quantized in QDQ form: x float32 [N,8] -> y float32 [N,4]."""
    w = Weights(9)
    w.put("s", np.float32(0.05))
    w.put("zx", np.uint8(128))
    w.put("zw", np.int8(0))
    w.put("wq", w.rng.integers(-20, 20, (8, 4)).astype(np.int8))
    nodes = [
        node("QuantizeLinear", ["x", "s", "zx"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "zx"], ["xd"]),
        node("DequantizeLinear", ["wq", "s", "zw"], ["wd"]),
        node("MatMul", ["xd", "wd"], ["y0"], name="mm"),
        node("QuantizeLinear", ["y0", "s", "zx"], ["yq"]),
        node("DequantizeLinear", ["yq", "s", "zx"], ["y"]),
    ]
    return model_of(nodes, [value("x", F, ["N", 8])], [value("y", F, ["N", 4])], w)


def arithmetic() -> ModelProto:
    """Nothing to quantize and nothing to fuse: x float32 [N,8] -> y float32 [N,8]."""
    nodes = [node("Tanh", ["x"], ["y"])]
    return model_of(nodes, [value("x", F, ["N", 8])], [value("y", F, ["N", 8])], Weights())


MAKERS: Mapping[str, Callable[[], ModelProto]] = {
    "cnn": cnn,
    "cnn_fixed_batch": lambda: cnn(batch=2),
    "cnn_opset11": lambda: cnn(opset=11),
    "encoder": encoder,
    "detector": detector,
    "recurrent": recurrent,
    "upsampler": upsampler,
    "constant_weights": constant_weights,
    "weights_as_inputs": weights_as_inputs,
    "half_weights": half_weights,
    "wide": wide,
    "qdq": qdq,
    "arithmetic": arithmetic,
}


def write(model: ModelProto, path: Path, *, external: bool = False) -> Path:
    """Save a model; with ``external`` its larger weights go to ``weights.bin`` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save_model(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=128)
    else:
        onnx.save_model(model, str(path))
    return path


def samples(model: ModelProto, n: int = 32, seed: int = 0) -> dict[str, Array]:
    """Seeded inputs for ``n`` samples (symbolic dimensions after the first: 5); states and scalars as they are."""
    rng = np.random.default_rng(seed)
    stored = {t.name for t in model.graph.initializer}
    out: dict[str, Array] = {}
    for info in model.graph.input:
        if info.name in stored:
            continue
        tensor = info.type.tensor_type
        shape = [d.dim_value or (n if d.dim_param in ("N", "T") else 5) for d in tensor.shape.dim]
        if shape and tensor.shape.dim[0].dim_value == 2:  # the fixed-batch model
            shape[0] = n
        out[info.name] = _draw(rng, info.name, tensor.elem_type, shape)
    return out


def _draw(rng: np.random.Generator, name: str, dtype: int, shape: list[int]) -> Array:
    if name == "sr":
        return np.array(16000, np.int64)
    if name == "attention_mask":
        mask = np.ones(shape, np.int64)
        mask[::2, -1] = 0
        return mask
    if dtype == I64:
        return rng.integers(0, 40, shape).astype(np.int64)
    return rng.standard_normal(shape).astype(np.float32)


@dataclass
class Samples:
    """A stand-in for ``autopilot.data.Split``: arrays in memory, the sample dimension first.

    Inputs named in ``shared`` don't follow the sample dimension; ``state`` is one whose second does.
    """

    arrays: Mapping[str, Array]
    n: int
    shared: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    batched: bool = True
    name: str = "calibration"
    digest: str = "0" * 64
    preprocess: None = None
    postprocess: None = None
    labels: Any = None

    def has_shared_inputs(self) -> bool:
        """True when an input is the same for all samples and its shape follows the batch size."""
        return bool(self.state)

    def feed(self, indices: slice | Sequence[int]) -> dict[str, Array]:
        """Model inputs of those samples."""
        where: Any = indices if isinstance(indices, slice) else list(indices)
        if not self.batched:
            return dict(self.arrays)
        out = {k: v[where] for k, v in self.arrays.items() if k not in self.shared + self.state}
        out |= {k: self.arrays[k] for k in self.shared}
        return out | {k: self.arrays[k][:, where] for k in self.state}


def split_for(model: ModelProto, n: int = 32, seed: int = 0) -> Samples:
    """Samples that fit one of the models above."""
    arrays = samples(model, n, seed)
    is_sequence = "x" in arrays and model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "T"
    shared = tuple(k for k, v in arrays.items() if v.ndim == 0)
    state = tuple(k for k in arrays if k == "h")
    return Samples(arrays, n, shared, state, batched=not is_sequence)
