"""An encoder of BERT's size with random weights, as a study to measure: no download, no training.

What it answers means nothing; how fast it answers is what a trained one of the same shape takes. Its labels are the
answers of float32 on the host, so that ``accuracy`` is the agreement with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
SPEC: dict[str, Any] = {
    "name": "encoder",
    "model": "model.onnx",
    "data": {"validation": "valid.npz"},
    "metric": "accuracy",
    "budget": {"quality_drop": 0.05},
    "objective": "latency_p50_ms",
}


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def put(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(node(operator, inputs, [output], name=output, **attributes))
        return output

    def dense(self, x: str, name: str, n_in: int, n_out: int) -> str:
        """x W + b."""
        weights = self.rng.standard_normal((n_in, n_out), np.float32) / np.float32(np.sqrt(n_in))
        product = self.add("MatMul", [x, self.put(f"{name}.w", weights)], f"{name}.product")
        return self.add("Add", [product, self.put(f"{name}.b", np.zeros(n_out, np.float32))], name)

    def norm(self, x: str, name: str, width: int) -> str:
        scale = self.put(f"{name}.scale", np.ones(width, np.float32))
        bias = self.put(f"{name}.bias", np.zeros(width, np.float32))
        return self.add("LayerNormalization", [x, scale, bias], name, axis=-1, epsilon=1e-12)


def _attention(g: _Graph, x: str, at: str, width: int, heads: int) -> str:
    """Softmax(q kT / sqrt(d)) v over ``heads`` heads, then a product."""
    split = {}
    for part, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        dense = g.dense(x, f"{at}.{part}", width, width)
        parts = g.add("Reshape", [dense, "to_heads"], f"{at}.{part}.parts")
        split[part] = g.add("Transpose", [parts], f"{at}.{part}.heads", perm=order)
    scores = g.add("MatMul", [split["q"], split["k"]], f"{at}.scores")
    scaled = g.add("Div", [scores, "root"], f"{at}.scaled")
    weights = g.add("Softmax", [scaled], f"{at}.softmax", axis=-1)
    mixed = g.add("MatMul", [weights, split["v"]], f"{at}.mixed")
    back = g.add("Transpose", [mixed], f"{at}.back", perm=[0, 2, 1, 3])
    return g.dense(g.add("Reshape", [back, "to_width"], f"{at}.joined"), f"{at}.out", width, width)


def encoder(
    *, layers: int = 12, width: int = 768, heads: int = 12, tokens: int = 128, vocabulary: int = 8192, classes: int = 16
) -> onnx.ModelProto:
    """``tokens`` (n, tokens) int64 -> ``logits`` (n, classes): BERT's layers over a smaller vocabulary."""
    g = _Graph(seed=0)
    g.put("to_heads", np.array([0, tokens, heads, width // heads], np.int64))
    g.put("to_width", np.array([0, tokens, width], np.int64))
    g.put("root", np.float32(np.sqrt(width // heads)))
    table = g.put("words", g.rng.standard_normal((vocabulary, width), np.float32))
    words = g.add("Gather", [table, "tokens"], "embedded")
    placed = g.add("Add", [words, g.put("places", g.rng.standard_normal((tokens, width), np.float32))], "placed")
    x = g.norm(placed, "first", width)
    for i in range(layers):
        attended = g.add("Add", [x, _attention(g, x, f"layer{i}", width, heads)], f"layer{i}.attended")
        x = g.norm(attended, f"layer{i}.norm", width)
        wide = g.add("Gelu", [g.dense(x, f"layer{i}.wide", width, 4 * width)], f"layer{i}.gelu")
        added = g.add("Add", [x, g.dense(wide, f"layer{i}.narrow", 4 * width, width)], f"layer{i}.added")
        x = g.norm(added, f"layer{i}.end", width)
    pooled = g.add("ReduceMean", [x, g.put("over", np.array([1], np.int64))], "pooled", keepdims=0)
    g.dense(pooled, "logits", width, classes)
    graph = helper.make_graph(
        g.nodes,
        "encoder",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", tokens])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def write_encoder(folder: Path, *, samples: int = 64, **sizes: int) -> Path:
    """Write model, data and spec into ``folder``, which is returned; ``sizes`` as ``encoder`` takes them."""
    import onnxruntime as ort

    folder.mkdir(parents=True, exist_ok=True)
    model = encoder(**sizes)
    onnx.save(model, folder / "model.onnx")
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    vocabulary = next(w.dims[0] for w in model.graph.initializer if w.name == "words")
    tokens = np.random.default_rng(1).integers(0, vocabulary, (samples, shape[1]))
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(None, {"tokens": tokens[i : i + 8]})[0] for i in range(0, samples, 8)])
    np.savez(folder / "valid.npz", tokens=tokens, label=logits.argmax(-1))
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False), encoding="utf-8")
    return folder
