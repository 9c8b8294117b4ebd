"""How stored arrays become model inputs."""

from __future__ import annotations

import numpy as np
import pytest

from autopilot.model import TensorInfo
from autopilot.spec import InputSpec
from tests.data_support import data, images, rows, run, save


def test_feed_casts_safely_and_keeps_the_sample_dimension(tmp_path):
    """Bytes become the model's float32 without being told; the result is contiguous and its own memory."""
    splits = run(tmp_path, data(save(tmp_path / "v.npz", **images(60))))

    feed = splits.validation.feed(slice(0, 3))

    assert feed["image"].dtype == np.float32
    assert feed["image"].shape == (3, 1, 4, 4)
    assert feed["image"].flags.c_contiguous
    assert feed["image"].flags.owndata


def test_feed_computes_scale_and_offset_as_written(tmp_path):
    """x * scale + offset, in float32, on the stored values that belong to the label."""
    told = {"image": InputSpec(source="pixels", dtype="float32", scale=1 / 255, offset=-0.5)}
    stored = images(60)
    path = save(tmp_path / "v.npz", pixels=stored["image"], label=stored["label"])

    split = run(tmp_path, data(path, inputs=told)).validation

    raw = split.raw([3, 1])["pixels"]
    expected = raw.astype(np.float32) * np.float32(1 / 255) + np.float32(-0.5)
    np.testing.assert_array_equal(split.feed([3, 1])["image"], expected)
    lookup = {stored["image"][i].tobytes(): stored["label"][i] for i in range(60)}
    assert [lookup[r] for r in rows(split, "pixels")] == split.labels.tolist()


@pytest.mark.parametrize(
    ("shape", "wanted", "axis"), [((3, 4, 5), ("b", 3, 4, 5), 1), ((4, 5, 3), ("b", 4, 5, 3), 3), ((3,), ("b", 3), 1)]
)
def test_feed_normalises_per_channel(tmp_path, shape, wanted, axis):
    """mean and std of three channels apply along axis 1, or along the last where that one has the length."""
    values = np.random.default_rng(0).random((40, *shape)).astype(np.float32)
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    path = save(tmp_path / "v.npz", x=values, label=np.arange(40) % 2)

    split = run(tmp_path, data(path, inputs={"x": InputSpec(mean=mean, std=std)}), TensorInfo("x", "float32", wanted))

    broadcast = [1] * (len(shape) + 1)
    broadcast[axis] = 3
    raw = split.validation.raw(slice(0, 5))["x"]
    expected = (raw - np.reshape(mean, broadcast)) / np.reshape(std, broadcast)
    np.testing.assert_allclose(split.validation.feed(slice(0, 5))["x"], expected, rtol=1e-5)


def test_feed_adds_constants_and_shared_arrays(tmp_path):
    """A constant of the spec and arrays without a sample dimension are the same in every request."""
    inputs = (
        TensorInfo("x", "float32", ("batch", 8)),
        TensorInfo("state", "float32", (2, "batch", 4)),
        TensorInfo("rate", "int64", ()),
        TensorInfo("h", "float32", (1, 1, 6)),
    )
    path = save(
        tmp_path / "v.npz",
        x=np.random.default_rng(0).random((40, 8)).astype(np.float32),
        state=np.ones((2, 1, 4), np.float32),
        rate=np.array(16000, np.int32),
        label=np.arange(40),
    )
    told = {"h": InputSpec(constant=0.5, shape=(1, 1, 6), dtype="float32")}

    split = run(tmp_path, data(path, inputs=told), *inputs).validation
    feed = split.feed([0])

    assert {k: v.shape for k, v in feed.items()} == {"x": (1, 8), "state": (2, 1, 4), "rate": (), "h": (1, 1, 6)}
    assert feed["rate"].dtype == np.int64
    assert int(feed["rate"]) == 16000
    assert float(feed["h"].mean()) == 0.5
    assert split.has_shared_inputs()


def test_feed_passes_one_sample_when_not_batched(tmp_path):
    """batched: false takes the sample dimension off."""
    path = save(
        tmp_path / "v.npz", x=np.random.default_rng(0).random((40, 7, 3)).astype(np.float32), label=np.arange(40)
    )

    split = run(tmp_path, data(path, batched=False), TensorInfo("x", "float32", ("time", 3))).validation

    assert split.feed([2])["x"].shape == (7, 3)
    assert split.feed(slice(2, 3))["x"].shape == (7, 3)
    with pytest.raises(ValueError, match="one sample"):
        split.feed([1, 2])


def test_feed_shapes_scalars_to_the_model(tmp_path):
    """One number a sample feeds [N] and [N, 1] alike."""
    path = save(tmp_path / "v.npz", a=np.arange(40.0), b=np.arange(40.0), label=np.arange(40))

    split = run(
        tmp_path, data(path), TensorInfo("a", "float64", ("n",)), TensorInfo("b", "float64", ("n", 1))
    ).validation

    assert split.feed([0, 1])["a"].shape == (2,)
    assert split.feed([0, 1])["b"].shape == (2, 1)


def test_fixed_batch_dimension_of_the_model_is_not_compared(tmp_path):
    """[8, 1, 4, 4] takes any number of samples: the evaluation groups them."""
    tensor = TensorInfo("image", "float32", (8, 1, 4, 4))

    assert (
        run(tmp_path, data(save(tmp_path / "v.npz", **images(60))), tensor).validation.feed([0])["image"].shape[0] == 1
    )


def test_parquet_gives_the_same_splits_as_npz(tmp_path):
    """Columns and nested lists read as the arrays they were made from."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    stored = images(60)
    table = pa.table({"image": pa.array(stored["image"].tolist(), pa.list_(pa.list_(pa.list_(pa.uint8())))),
                      "label": stored["label"]})  # fmt: skip
    parquet.write_table(table, tmp_path / "v.parquet", row_group_size=7)

    from_parquet = run(tmp_path / "a", data(tmp_path / "v.parquet"))
    from_npz = run(tmp_path / "b", data(save(tmp_path / "v.npz", **stored)))

    assert from_parquet.validation.digest == from_npz.validation.digest
    assert from_parquet.digest == from_npz.digest


def test_big_endian_and_fortran_arrays_read_as_their_values(tmp_path):
    """Storage order is not meaning."""
    plain = np.random.default_rng(0).random((40, 3, 5)).astype(np.float32)
    told = TensorInfo("x", "float32", ("n", 3, 5))
    label = np.arange(40)
    odd = save(tmp_path / "odd.npz", x=np.asfortranarray(plain).astype(">f4", order="K"), label=label)

    a = run(tmp_path / "a", data(odd), told)
    b = run(tmp_path / "b", data(save(tmp_path / "plain.npz", x=plain, label=label)), told)

    assert a.digest == b.digest
