"""The starter spec of a PyTorch model: what its code leaves open comes from the data; PyTorch itself isn't needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.build import torch_describe
from autopilot.errors import ModelError
from autopilot.init import torch_starter, write_starter
from autopilot.model import TensorInfo
from autopilot.plugins import vocabulary
from autopilot.spec import TorchSource, load_spec
from tests.unit.search_support import info_of

N = 40
IMAGES = np.full((N, 1, 8, 8), 255, np.uint8)
LABELS = np.arange(N) % 4


@pytest.fixture
def source(tmp_path: Path) -> TorchSource:
    """Code and weights that nobody runs."""
    (tmp_path / "net.py").write_text("")
    (tmp_path / "w.safetensors").write_text("")
    return TorchSource(code=f"{tmp_path / 'net.py'}:build", weights=tmp_path / "w.safetensors")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A child that names the input x and, given samples, answers with ten classes; the examples that it was given."""
    examples: list[Any] = []

    def describe(source: TorchSource, example: Any, **more: Any) -> Any:
        examples.append(example)
        outputs = (TensorInfo("output", "float32", (2, 10)),) if example is not None else ()
        return replace(info_of(), inputs=(TensorInfo("x", "", ()),), outputs=outputs)

    monkeypatch.setattr(torch_starter, "describe_torch", describe)
    return examples


def start(folder: Path, source: TorchSource, **arrays: Any) -> tuple[list[str], str]:
    np.savez(folder / "valid.npz", **arrays)
    remarks = write_starter(source, folder / "valid.npz", folder / "spec.yaml")
    return remarks, (folder / "spec.yaml").read_text()


def test_code_is_written_with_its_weights_and_fed_from_the_data(
    tmp_path: Path, source: TorchSource, told: list[Any]
) -> None:
    """The only array feeds the only input, bytes as pixels, and the model ran on it once."""
    remarks, text = start(tmp_path, source, image=IMAGES, label=LABELS)

    problem = load_spec(tmp_path / "spec.yaml", vocabulary())
    assert problem.model == source
    assert problem.data.inputs["x"].source == "image"
    assert problem.metric.name == "accuracy"
    assert remarks == []
    assert 'code: "net.py:build"' in text
    assert told[0] is None
    assert told[1].feed["x"].max() == pytest.approx(1.0)
    assert told[1].feed["x"].dtype == np.float32


def test_exported_program_is_written_as_its_file(tmp_path: Path, told: list[Any]) -> None:
    """Relative to the spec, as an ONNX file is."""
    (tmp_path / "net.pt2").write_text("")
    _, text = start(tmp_path, TorchSource(program=tmp_path / "net.pt2"), x=IMAGES, label=LABELS)

    assert "model: net.pt2" in text


def test_model_that_fails_on_the_samples_is_a_remark(
    tmp_path: Path, source: TorchSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spec is written all the same: its author sees what to mend."""

    def describe(source: TorchSource, example: Any, **more: Any) -> Any:
        if example is not None:
            raise ModelError("the model fails on the first samples.")
        return replace(info_of(), inputs=(TensorInfo("x", "", ()),), outputs=())

    monkeypatch.setattr(torch_starter, "describe_torch", describe)

    remarks, text = start(tmp_path, source, image=IMAGES, label=LABELS)

    assert "fails on the first samples" in remarks[0]
    assert "metric: accuracy" in text


def test_inputs_that_nothing_feeds_are_left_to_fill_in(
    tmp_path: Path, source: TorchSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two inputs and arrays of other names: no guess."""
    inputs = (TensorInfo("a", "", ()), TensorInfo("b", "", ()))
    monkeypatch.setattr(
        torch_starter, "describe_torch", lambda *args, **more: replace(info_of(), inputs=inputs, outputs=())
    )

    remarks, text = start(tmp_path, source, image=IMAGES, label=LABELS)

    assert text.count("FILL_IN") == 2
    assert any("input a" in remark for remark in remarks)


def test_missing_torch_says_how_to_install_it(
    tmp_path: Path, source: TorchSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any child is started; nothing is written."""
    monkeypatch.setattr("autopilot.build.torch_export.missing", lambda *names: "torch is not installed.")
    monkeypatch.setattr(torch_describe, "run_child", lambda *args, **more: pytest.fail("a child was started"))

    with pytest.raises(ModelError, match="torch is not installed") as caught:
        write_starter(source, None, tmp_path / "spec.yaml")

    assert "pip install" in (caught.value.hint or "")
    assert not (tmp_path / "spec.yaml").exists()
