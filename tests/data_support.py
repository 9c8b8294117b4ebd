"""Small data sets and specs for the tests of data preparation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from autopilot.data import Split
from autopilot.data.preparation import Splits, prepare
from autopilot.model import ModelInfo, TensorInfo
from autopilot.spec import DataSpec, MetricSpec

METRIC = MetricSpec(name="accuracy", options={}, output=None, function=None, direction=None)
IMAGE = TensorInfo("image", "float32", ("batch", 1, 4, 4))


def model(*inputs: TensorInfo) -> ModelInfo:
    """A model of these inputs; data preparation reads nothing else of it."""
    return ModelInfo(
        path=Path("model.onnx"),
        files=(),
        inputs=inputs or (IMAGE,),
        outputs=(),
        opset=18,
        op_counts={},
        quantized=False,
        has_control_flow=False,
        dynamic_quantized=False,
        parameters=0,
        batch=None,
    )


def images(n: int, seed: int = 0) -> dict[str, Any]:
    """Different images of bytes with labels 0 .. 4."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8),
        "label": rng.integers(0, 5, n).astype(np.uint8),
    }


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def data(validation: Path, **more: Any) -> DataSpec:
    """A data section with only ``validation``, unless told more."""
    base = {"test": None, "train": None, "label": "label", "inputs": {}, "batched": True}
    return DataSpec(validation=validation, **{**base, "preprocess": None, "postprocess": None, **more})


def run(folder: Path, spec: DataSpec, *inputs: TensorInfo, seed: int = 0, labels: bool = True) -> Splits:
    """Prepare ``spec`` for a model of ``inputs`` (default: IMAGE) under ``folder / "data"``."""
    return prepare(spec, METRIC, model(*inputs), folder / "data", seed=seed, metric_needs_labels=labels)


def rows(split: Split, name: str = "image") -> list[bytes]:
    """The samples as bytes, for comparing sets."""
    return [np.ascontiguousarray(split.raw([i])[name]).tobytes() for i in range(split.n)]
