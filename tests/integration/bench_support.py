"""Small real models and prepared splits for the tests of ``autopilot.bench``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autopilot.bench.child import ChildLimits
from autopilot.data import Split
from autopilot.data.mapping import InputMap
from autopilot.data.split import seal
from autopilot.recipe import Deployment

LIMITS = ChildLimits(wall_s=240.0)
ONE_THREAD = Deployment("cpu", threads=1, batch=1)


def write_split(folder: Path, arrays: Mapping[str, Any], *, batched: bool = True, **hooks: str) -> Split:
    """A split of ``arrays`` (samples first), each fed under its own name as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    meta = {
        "name": "validation",
        "n": len(next(iter(arrays.values()))),
        "batched": batched,
        "inputs": [InputMap(name=name, dtype="float32", source=name).to_json() for name in arrays],
        "arrays": {name: f"{name}.npy" for name in arrays},
        "shared": {},
        "label": None,
        "model_inputs": dict.fromkeys(arrays, "float32"),
        "preprocess": hooks.get("preprocess"),
        "postprocess": hooks.get("postprocess"),
    }
    seal(folder, meta, [])
    return Split.load(folder)


def samples(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 values, shape (n, *shape)."""
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Mapping[str, Any]) -> Path:
    """Write a checked ONNX model of opset 17."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def dense(path: Path, *, width: int = 16, batch: int | str = "n", layers: int = 1) -> Path:
    """``x (batch, width) -> y (batch, width)``: ``layers`` matrix products with ReLU."""
    weights = {f"w{i}": samples(width, width, seed=i) / np.float32(np.sqrt(width)) for i in range(layers)}
    nodes = []
    for i in range(layers):
        source, target = ("x" if i == 0 else f"h{i}"), ("y" if i == layers - 1 else f"h{i + 1}")
        nodes.append(helper.make_node("MatMul", [source, f"w{i}"], [f"m{i}"], name=f"matmul{i}"))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [target], name=f"relu{i}"))
    shape = [batch, width]
    return save(path, nodes, [value("x", shape)], [value("y", shape)], weights)


def value(name: str, shape: list[Any] | None) -> Any:
    """A float32 input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
