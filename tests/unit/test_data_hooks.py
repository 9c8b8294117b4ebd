"""The user's preprocess and postprocess functions."""

from __future__ import annotations

import numpy as np
import pytest

from autopilot.data import apply_postprocess, load_hook
from autopilot.data.hooks import nearest
from autopilot.errors import DataError
from tests.data_support import data, images, run, save


def hook(tmp_path, body, name="preprocess"):
    file = tmp_path / "steps.py"
    file.write_text(body)
    return f"{file}:{name}"


def test_preprocess_hook_makes_the_model_inputs(tmp_path):
    """Raw arrays in, model inputs out; arrays that no input is named after reach it too."""
    body = "def preprocess(raw):\n    return {'image': (raw['pixels'] / 255).astype('float32')}\n"
    path = save(tmp_path / "v.npz", pixels=images(60)["image"], label=images(60)["label"])

    split = run(tmp_path, data(path, preprocess=hook(tmp_path, body))).validation

    assert split.feed([0, 1])["image"].max() <= 1.0
    assert split.raw([0])["pixels"].dtype == np.uint8
    assert "label" not in split.raw([0])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def preprocess(raw):\n    return {'image': raw['image']} + 1\n", ["TypeError", "line 2"]),
        ("def preprocess(raw):\n    return {'img': raw['image']}\n", ["returns no 'image'"]),
        ("def preprocess(raw):\n    return {'image': raw['image'] / 255}\n", ["float64", "astype('float32')"]),
        ("def preprocess(raw):\n    return {'image': raw['image'][:, :, :2]}\n", ["[8, 1, 2, 4]"]),
        ("def preprocess(raw):\n    return {'image': raw['image'][:3]}\n", ["3 rows", "8 samples"]),
        ("def preprocess(raw):\n    return {}\n", ["returned nothing"]),
        ("def preprocess(raw:\n", ["SyntaxError"]),
        ("import no_such_module\n", ["no_such_module"]),
        ("raise SystemExit(3)\n", ["SystemExit"]),
        ("def preproces(raw):\n    return raw\n", ["no function 'preprocess'", "'preproces'"]),
    ],
)
def test_preprocess_hook_errors_name_file_and_function(tmp_path, body, words):
    """A hook that fails to load, to run or to return what the model takes is the user's to mend."""
    with pytest.raises(DataError) as caught:
        run(tmp_path, data(save(tmp_path / "v.npz", **images(60)), preprocess=hook(tmp_path, body)))

    for word in ["steps.py", *words] if "rows" not in str(caught.value) and "[8" not in str(caught.value) else words:
        assert word in str(caught.value)


def test_hook_content_is_part_of_the_digest(tmp_path):
    """Another preprocessing makes other splits."""
    path = save(tmp_path / "v.npz", **images(60))
    body = "def preprocess(raw):\n    return {'image': raw['image'].astype('float32') * %d}\n"

    digests = {run(tmp_path, data(path, preprocess=hook(tmp_path, body % k))).validation.digest for k in (1, 2)}

    assert len(digests) == 2


def test_postprocess_hook_may_return_an_array_or_a_mapping(tmp_path):
    """One array alone is called ``output``."""
    reference = hook(tmp_path, "def post(outputs):\n    return outputs['a'] * 2\n", "post")

    assert apply_postprocess(load_hook(reference), reference, {"a": np.ones(2)})["output"].tolist() == [2.0, 2.0]


def test_nearest_lists_what_there_is_when_nothing_is_close():
    """Either the right word or the choice."""
    assert nearest("imgae", ["image", "mask"]) == "Did you mean 'image'?"
    assert nearest("zzz", ["image", "mask"]) == "There is: image, mask."
