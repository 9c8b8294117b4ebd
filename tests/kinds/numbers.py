"""Numbers other than float32: halves, doubles, models quantized before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.kinds.case import (
    F16,
    F64,
    Arrays,
    Case,
    accuracy,
    best_class,
    floats,
    perceptron,
    same,
)
from tests.models import F, Weights, model_of, value


def half() -> Case:
    """float16 from end to end."""
    w = Weights(31)
    nodes = perceptron(w, np.float16)
    model = model_of(nodes, [value("x", F16, ["N", 12])], [value("y", F16, ["N", 4])], w)

    def draw(n: int, seed: int) -> Arrays:
        return {"x": floats(x=(12,))(n, seed)["x"].astype(np.float16)}

    return Case(model, draw, same("x"), accuracy, "accuracy", best_class)


def double() -> Case:
    """float64 from end to end, as scikit-learn's graphs may be; the metric is a user's function."""
    w = Weights(32)
    nodes = perceptron(w, np.float64)
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
            nodes = perceptron(w, np.float32)
            onnx.save(model_of(nodes, [value("x", F, ["N", 12])], [value("y", F, ["N", 4])], w), source)
            quantize_dynamic(source, target)
            return Case(onnx.load(target), floats(x=(12,)), same("x"), accuracy, "accuracy", best_class)
        onnx.save(models.cnn(), source)
        quantize_static(source, target, Reader(), quant_format=QuantFormat[kind])
        return Case(onnx.load(target), floats(image=(1, 8, 8)), same("image"), accuracy, "accuracy", best_class)
