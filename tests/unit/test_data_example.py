"""The first samples as inputs of a model that can't say what its inputs are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.data.example import take_example
from autopilot.errors import DataError
from autopilot.spec import DataSpec, InputSpec


def stored(folder: Path, **arrays: Any) -> Path:
    """An .npz file."""
    np.savez(folder / "valid.npz", **arrays)
    return folder / "valid.npz"


def test_all_arrays_but_the_label_are_inputs_when_none_is_named(tmp_path: Path) -> None:
    """Without a mapping the file's own names and types count."""
    path = stored(tmp_path, x=np.arange(24.0, dtype=np.float32).reshape(8, 3), ids=np.zeros(8, int), label=np.ones(8))

    example = take_example(DataSpec(path), 4)

    assert {k: (v.shape, v.dtype.name) for k, v in example.feed.items()} == {
        "x": ((4, 3), "float32"),
        "ids": ((4,), "int64"),
    }
    assert (example.samples, example.per_sample, example.batched) == (4, ("x", "ids"), True)


def test_mapping_names_converts_and_scales(tmp_path: Path) -> None:
    """Pixels become float32 as soon as a mapping calculates with them; constants are no samples."""
    path = stored(tmp_path, pixels=np.full((40, 2), 128, np.uint8), other=np.zeros(40), label=np.zeros(40))
    inputs = {"image": InputSpec(source="pixels", scale=0.5), "rate": InputSpec(constant=16000, dtype="int64")}

    example = take_example(DataSpec(path, inputs=inputs), 3)

    assert example.feed["image"].tolist() == [[64.0, 64.0]] * 3
    assert example.feed["image"].dtype == np.float32
    assert example.feed["rate"].item() == 16000
    assert example.per_sample == ("image",)


def test_unbatched_example_is_one_sample(tmp_path: Path) -> None:
    """A sequence model's request has no sample dimension."""
    path = stored(tmp_path, x=np.zeros((6, 10, 1, 4), np.float32), label=np.zeros(6))

    example = take_example(DataSpec(path, batched=False), 4)

    assert example.feed["x"].shape == (10, 1, 4)
    assert (example.samples, example.per_sample) == (1, ())


def test_shared_arrays_come_whole(tmp_path: Path) -> None:
    """An array without the sample dimension is the same for all samples."""
    path = stored(tmp_path, x=np.zeros((8, 3), np.float32), state=np.ones((1, 5), np.float32), label=np.zeros(8))

    example = take_example(DataSpec(path), 4)

    assert example.feed["state"].shape == (1, 5)
    assert example.per_sample == ("x",)


def test_preprocess_hook_makes_the_inputs(tmp_path: Path) -> None:
    """Whatever it returns, by its own names, from raw samples without the label."""
    path = stored(tmp_path, pixels=np.full((8, 2), 3, np.uint8), label=np.zeros(8))
    hook = tmp_path / "steps.py"
    hook.write_text("def go(raw):\n    assert list(raw) == ['pixels']\n    return {'x': raw['pixels'] * 2.0}\n")

    example = take_example(DataSpec(path, preprocess=f"{hook}:go"), 4)

    assert example.feed["x"].tolist() == [[6.0, 6.0]] * 4
    assert example.per_sample == ("x",)


def test_array_that_is_missing_is_named(tmp_path: Path) -> None:
    """As for an ONNX model."""
    path = stored(tmp_path, pixels=np.zeros((8, 2)), label=np.zeros(8))

    with pytest.raises(DataError, match="finds no array 'image'"):
        take_example(DataSpec(path, inputs={"image": InputSpec()}), 4)
