"""Data that do not fit are refused in one paragraph, with nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest

from autopilot.errors import DataError
from autopilot.model import TensorInfo
from autopilot.spec import InputSpec
from tests.data_support import data, images, run, save


def changed(**more):
    return {**images(60), **more}


def nan_image(count):
    x = np.zeros((60, 1, 4, 4), np.float32)
    x.reshape(-1)[:count] = np.nan
    return x


@pytest.mark.parametrize(
    ("arrays", "more", "words"),
    [
        ({**images(29)}, {}, ["29 samples", "at least 30"]),
        ({**images(0)}, {}, ["empty"]),
        (changed(image=nan_image(3)), {}, ["'image'", "3 NaN"]),
        (changed(image=np.full((60, 1, 4, 4), np.inf, np.float32)), {}, ["960 infinite"]),
        (changed(label=np.where(np.arange(60) < 2, np.nan, 1.0)), {}, ["'label'", "2 NaN"]),
        (changed(image=np.zeros((60, 1, 4, 4))), {}, ["float64", "not a safe cast", "dtype: float32"]),
        (changed(image=np.zeros((60, 3, 4, 4), np.uint8)), {}, ["uint8[60, 3, 4, 4]", "batch, 1, 4, 4"]),
        (changed(image=np.zeros((60, 16), np.uint8)), {}, ["does not fit"]),
        (changed(image=np.zeros((59, 1, 4, 4), np.uint8)), {}, ["v.npz", "it has 59 samples, but 'label' in"]),
        (changed(image=np.zeros((60, 1, 4, 4), "U3")), {}, ["text and numbers"]),
        (changed(image=np.zeros((60, 1, 4, 4), np.complex64)), {}, ["complex64"]),
        ({"imagee": images(60)["image"], "label": images(60)["label"]}, {}, ["no array 'image'", "'imagee'"]),
        ({"image": images(60)["image"], "labels": images(60)["label"]}, {}, ["no label array 'label'", "'labels'"]),
        (images(60), {"inputs": {"imag": InputSpec(source="image")}}, ["'imag'", "no input", "'image'"]),
        (images(60), {"inputs": {"image": InputSpec(source="pixels")}}, ["no array 'pixels'"]),
        (images(60), {"inputs": {"image": InputSpec(dtype="float16")}}, ["float16", "dtype: float32"]),
        (images(60), {"inputs": {"image": InputSpec(std=0.0)}}, ["std holds a zero"]),
        (images(60), {"inputs": {"image": InputSpec(mean=(1.0, 2.0))}}, ["2 values a channel"]),
        (images(60), {"inputs": {"image": InputSpec(constant=0.0, shape=(1, 4))}}, ["[1, 4]", "4 dimensions"]),
        (images(60), {"batched": False}, ["without its sample dimension", "drop data.batched"]),
    ],
)  # fmt: skip
def test_prepare_refuses_data_that_do_not_fit(tmp_path, arrays, more, words):
    """One paragraph that names file, array, what is wrong and what would be right; nothing half-written."""
    with pytest.raises(DataError) as caught:
        run(tmp_path, data(save(tmp_path / "v.npz", **arrays), **more))

    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_prepare_refuses_an_explicit_cast_that_loses_values(tmp_path):
    """dtype: int32 is taken at its word, but not when a value does not fit into it."""
    tensor = TensorInfo("ids", "int32", ("n", 4))
    ids = np.arange(240, dtype=np.int64).reshape(60, 4)
    told = {"ids": InputSpec(dtype="int32")}

    fine = run(tmp_path / "a", data(save(tmp_path / "a.npz", ids=ids, label=np.arange(60)), inputs=told), tensor)
    assert fine.validation.feed([0])["ids"].dtype == np.int32
    ids[0, 0] = 2**40
    with pytest.raises(DataError, match=r"1 value\(s\) that int32 can't hold"):
        run(tmp_path / "b", data(save(tmp_path / "b.npz", ids=ids, label=np.arange(60)), inputs=told), tensor)


def test_prepare_refuses_pickled_objects_without_running_them(tmp_path):
    """An object array could run code when read: it is refused by its header."""
    ragged = np.empty(40, object)
    ragged[:] = [np.zeros(i) for i in range(40)]
    np.savez(tmp_path / "v.npz", image=ragged, label=np.arange(40))

    with pytest.raises(DataError, match="Python objects"):
        run(tmp_path, data(tmp_path / "v.npz"))


@pytest.mark.parametrize("damage", ["missing", "folder", "text", "cut", "corrupt", "kind", "parquet"])
def test_prepare_refuses_files_it_cannot_read(tmp_path, damage):
    """Missing, foreign, truncated and corrupt files are named."""
    path = save(tmp_path / "v.npz", **images(60))
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path = tmp_path / "gone.npz"
    elif damage == "folder":
        path = tmp_path
    elif damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "corrupt":
        content[120:160] = bytes(40)
        path.write_bytes(content)
    elif damage == "kind":
        path = path.rename(tmp_path / "v.csv")
    else:
        path = tmp_path / "v.parquet"
        path.write_text("hello")

    with pytest.raises(DataError, match=path.name):
        run(tmp_path, data(path))


def test_parquet_refuses_ragged_lists_and_nulls(tmp_path):
    """Lists of different lengths and nulls are no arrays."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, column in (("ragged", [[1.0], [1.0, 2.0]] * 20), ("nulls", [[1.0], [None]] * 20)):
        parquet.write_table(pa.table({"x": column, "label": list(range(40))}), tmp_path / f"{name}.parquet")

        with pytest.raises(DataError, match="'x'"):
            run(tmp_path, data(tmp_path / f"{name}.parquet"), TensorInfo("x", "float64", ("n", 1)))


def test_labels_may_be_missing_when_the_metric_needs_none(tmp_path):
    """Metrics against the baseline work on inputs alone."""
    path = save(tmp_path / "v.npz", image=images(60)["image"])

    assert run(tmp_path, data(path), labels=False).validation.labels is None
