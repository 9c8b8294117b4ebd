"""The winner in its own deployment: ``autopilot.load`` and what MLflow calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import autopilot
from autopilot.artifact import Artifact
from autopilot.errors import BadInput, VariantFailed
from autopilot.outputs import write_outputs
from autopilot.result import StudyResult
from autopilot.serving import PyfuncModel, Runner, _load_pyfunc, load
from autopilot.testing import FailingSession, FakeSession, double, fake_result
from tests import models

pytestmark = pytest.mark.integration


def bundle(folder: Path, result: StudyResult | None = None, **mapping: Any) -> Path:
    """The ``best`` folder of a run whose winner is a small CNN."""
    folder.mkdir(parents=True, exist_ok=True)
    artifact = Artifact.of([models.write(models.cnn(), folder / "cnn.onnx")])
    write_outputs(result or fake_result(), folder / "run", artifact, preprocessing=mapping)
    return folder / "run" / "best"


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A winner's folder; left as it is by the tests."""
    return bundle(tmp_path_factory.mktemp("serving"))


def fake_runner(session: Any = None, **changes: Any) -> Runner:
    """A runner over a fake session: inputs ``x`` (float32) and ``h`` (int64, a scalar a sample)."""
    variant: dict[str, Any] = {
        "name": "fake",
        "deployment": {"provider": "cpu", "threads": 1, "batch": 1},
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": ["N", 3]},
            {"name": "h", "dtype": "int64", "shape": [None]},
        ],
        "outputs": [{"name": "output", "dtype": "float32", "shape": ["N", 3]}],
        **changes,
    }
    return Runner(session or FakeSession(double), variant)


ONE = {"inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 3]}]}


def test_loaded_model_answers_like_onnxruntime(best: Path) -> None:
    """Same file, same inputs, same outputs, whatever the batch size."""
    import onnxruntime as ort

    plain = ort.InferenceSession(str(best / "model.onnx"), providers=["CPUExecutionProvider"])
    runner = autopilot.load(best)

    for n in (1, 5, 32):
        feed = models.samples(models.cnn(), n)
        found = runner(feed)
        assert list(found) == ["logits"]
        np.testing.assert_allclose(found["logits"], plain.run(None, dict(feed))[0], rtol=1e-4, atol=1e-6)


def test_deployment_of_the_variant_reaches_the_session(tmp_path: Path) -> None:
    """Threads, options and provider are those that were measured, not defaults."""
    result = fake_result()
    assert result.best is not None
    measured = replace(
        result.best.deployment, threads=2, options=(("graph_optimization", "basic"), ("spinning", False))
    )
    folder = bundle(tmp_path, replace(result, best=replace(result.best, deployment=measured)))

    runner = load(folder)

    options = runner._session._session.get_session_options()  # type: ignore[attr-defined]
    assert runner.deployment == measured
    assert options.intra_op_num_threads == 2
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"xx": np.zeros((1, 3), np.float32)}, r"no input 'xx'.*mean 'x'"),
        ({"x": np.zeros((1, 3), np.float32)}, "'h' is missing"),
        ({"x": np.zeros((1, 3)), "h": np.zeros(1, np.int64)}, r"'x' is float64.*float32.*astype"),
        ({"x": np.zeros((1, 4), np.float32), "h": np.zeros(1, np.int64)}, r"\[1, 4\].*\[N, 3\]"),
        ({"x": np.zeros(3, np.float32), "h": np.zeros(1, np.int64)}, r"array\[None\]"),
        ({"x": np.zeros((1, 3), np.float32), "h": [1.5]}, "'h' is float64"),
        ({"x": [[1.0, 2.0, 3.0], [1.0]], "h": [1]}, "equal shape"),
        (np.zeros((1, 3), np.float32), "mapping"),
    ],
)
def test_wrong_inputs_are_named(feed: Any, message: str) -> None:
    """Each mistake gets a sentence that says what would be right."""
    with pytest.raises(BadInput, match=message):
        fake_runner()(feed)


@pytest.mark.parametrize(
    "value", [np.ones((1, 3), np.float16), np.ones((1, 3), np.uint8), [[1, 2, 3]], [[1.5, 2.5, 3.5]]]
)
def test_inputs_that_fit_are_cast(value: Any) -> None:
    """Safe casts are done, and plain Python numbers take the model's type."""
    found = fake_runner(**ONE)({"x": value})

    assert found["output"].dtype == np.float32
    np.testing.assert_array_equal(found["output"], 2 * np.asarray(value, dtype=np.float32))


def test_constant_inputs_may_be_left_out() -> None:
    """What the spec fixed for every sample need not be given again."""
    seen: list[Mapping[str, Any]] = []

    def remember(feed: Mapping[str, Any]) -> list[Any]:
        seen.append(dict(feed))
        return double(feed)

    runner = fake_runner(
        FakeSession(remember), preprocessing={"inputs": {"h": {"constant": 7, "shape": [1], "dtype": "int64"}}}
    )
    runner({"x": np.ones((2, 3), np.float32)})
    runner({"x": np.ones((2, 3), np.float32), "h": np.array([9])})

    assert runner.required == ("x",)
    assert [feed["h"].tolist() for feed in seen] == [[7], [9]]
    assert seen[0]["h"].dtype == np.int64


def test_failure_of_the_runtime_keeps_its_class() -> None:
    """A crash inside the provider is not reported as bad input."""
    with pytest.raises(VariantFailed, match="on purpose"):
        fake_runner(FailingSession(), **ONE)({"x": np.ones((1, 3), np.float32)})


def test_changed_model_is_refused(tmp_path: Path) -> None:
    """The verdict belongs to the file that was measured."""
    folder = bundle(tmp_path)
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")

    with pytest.raises(BadInput, match="sha256 differs"):
        load(folder)


def test_missing_model_is_refused(tmp_path: Path) -> None:
    """Half a copy of the folder is bad input."""
    folder = bundle(tmp_path)
    (folder / "model.onnx").unlink()

    with pytest.raises(BadInput, match="missing"):
        load(folder)


def test_run_folder_points_to_best(best: Path) -> None:
    """The likeliest slip: the run's folder instead of best/."""
    with pytest.raises(BadInput, match=r"run's folder.*best"):
        load(best.parent)


@pytest.mark.parametrize("content", [None, "{", "{}", "[]"])
def test_folder_without_a_variant_is_refused(tmp_path: Path, content: str | None) -> None:
    """Foreign folders and torn files are bad input."""
    if content is not None:
        (tmp_path / "variant.json").write_text(content)

    with pytest.raises(BadInput, match=r"variant\.json"):
        load(tmp_path)


def test_unknown_provider_names_those_there_are(tmp_path: Path) -> None:
    """A bundle from a machine with another plug-in says what is missing here."""
    folder = bundle(tmp_path)
    variant = json.loads((folder / "variant.json").read_text())
    variant["deployment"]["provider"] = "npu9000"
    (folder / "variant.json").write_text(json.dumps(variant))

    with pytest.raises(BadInput, match=r"npu9000.*cpu"):
        load(folder)


def test_pyfunc_takes_dict_array_and_frame(best: Path) -> None:
    """What MLflow hands over in its three forms gives the same answer."""
    model = _load_pyfunc(str(best))
    image = models.samples(models.cnn(), 4)["image"]
    frame = pd.DataFrame({"image": list(image)})

    expected = model.predict({"image": image})["logits"]

    np.testing.assert_array_equal(model.predict(image)["logits"], expected)
    np.testing.assert_array_equal(model.predict(frame)["logits"], expected)
    np.testing.assert_array_equal(model.predict({"image": image}, params={})["logits"], expected)


def test_pyfunc_takes_a_frame_of_numbers() -> None:
    """A table without the input's name is the single input itself; otherwise a column an input."""
    single = PyfuncModel(fake_runner(**ONE))
    several = PyfuncModel(
        fake_runner(
            inputs=[
                {"name": "a", "dtype": "float32", "shape": ["N", 1]},
                {"name": "b", "dtype": "int32", "shape": ["N"]},
            ]
        )
    )

    table = single.predict(pd.DataFrame({"p": [1.0, 2.0], "q": [3.0, 4.0], "r": [5.0, 6.0]}))
    columns = several.predict(pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4]}))

    assert table["output"].tolist() == [[2.0, 6.0, 10.0], [4.0, 8.0, 12.0]]
    assert columns["output"].tolist() == [[2.0], [4.0]]


def test_pyfunc_refuses_one_array_for_two_inputs() -> None:
    """Guessing which input is meant would be worse than asking."""
    with pytest.raises(BadInput, match=r"2 inputs \(x, h\)"):
        PyfuncModel(fake_runner()).predict(np.zeros((1, 3), np.float32))


def test_pyfunc_refuses_unknown_columns() -> None:
    """A misspelt column is named."""
    with pytest.raises(BadInput, match="no input 'hh'"):
        PyfuncModel(fake_runner()).predict(pd.DataFrame({"x": [1.0], "hh": [1]}))
