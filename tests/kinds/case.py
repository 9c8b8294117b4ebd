"""What one kind of model is: its file, data, spec, and score by hand; and parts that several share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import yaml
from onnx import ModelProto, TensorProto

from tests.models import Array, Weights, node

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

    def write(self, folder: Path, **changes: Any) -> dict[str, float]:
        """A study's folder, ``changes`` replacing keys of the spec; the score of each data file by hand.

        Validation and test are files of their own, so that a run scores just these samples.
        """
        onnx.save(self.model, folder / "model.onnx")
        scores = {}
        for seed, (role, n) in enumerate((("validation", self.n), ("test", self.n), ("train", 2 * self.n))):
            arrays = self.draw(n, seed)
            found = self.answers(folder / "model.onnx", arrays, n)
            labels = self.label(found) if self.label else None
            scores[role] = self.formula(found, found if labels is None else labels)
            _store(folder / f"{role}{self.suffix}", arrays | ({} if labels is None else {"label": labels}))
        for name, text in self.files.items():
            (folder / name).write_text(text)
        spec = {
            "name": "kind",
            "model": "model.onnx",
            "data": {role: f"{role}{self.suffix}" for role in scores} | dict(self.data),
            "metric": self.metric,
            # No limit on a time: the verdict is the same on the busiest machine. Nor is the objective one: variants of
            # a tiny model tie on that, and finalists that tie are compared for a dozen seconds each.
            "budget": {"size_mb": 1000, "quality_drop": 5.0},
            "objective": "size_mb",
            "target": {"providers": ["cpu"], "threads": 1},
            "space": "quick",
            "search": {"trials": 3, "timeout": "300s", "seed": 0, "measure_cap": "0.2s"},
        }
        (folder / "spec.yaml").write_text(yaml.safe_dump(spec | changes))
        return scores


def _store(path: Path, arrays: Arrays) -> None:
    """One data file; in Parquet further dimensions are lists of the array's own type."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return
    import pyarrow as pa
    import pyarrow.parquet

    def column(values: Array) -> Any:
        kind = pa.from_numpy_dtype(values.dtype)
        for _ in values.shape[1:]:
            kind = pa.list_(kind)
        return pa.array(values.tolist(), kind)

    pyarrow.parquet.write_table(pa.table({k: column(v) for k, v in arrays.items()}), path)


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


def mae(output: Array, labels: Array) -> float:
    """Mean absolute error."""
    return float(np.abs(output.reshape(labels.shape).astype(np.float64) - labels).mean())


def noisy(output: Array) -> Array:
    """One float a sample near the model's answer."""
    rng = np.random.default_rng(7)
    flat = output.reshape(len(output)).astype(np.float64)
    return (flat + 0.2 * flat.std() * rng.standard_normal(len(flat))).astype(np.float32)


def f1(threshold: float, output: Array, labels: Array) -> float:
    """2 TP / (2 TP + FP + FN) over all decisions."""
    said, there = output.reshape(-1) > threshold, labels.reshape(-1) > 0
    return float(2 * (said & there).sum() / max(1, said.sum() + there.sum()))


def perceptron(w: Weights, dtype: Any) -> list[onnx.NodeProto]:
    for name, shape in (("w1", (12, 32)), ("b1", (32,)), ("w2", (32, 4)), ("b2", (4,))):
        w.put(name, (0.4 * w.rng.standard_normal(shape)).astype(dtype))
    return [
        node("Gemm", ["x", "w1", "b1"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
