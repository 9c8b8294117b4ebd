"""MODEL on the command line: the PyTorch forms, and what those that aren't taken are told."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from autopilot.errors import BadInput, ModelError
from autopilot.spec import TorchSource
from autopilot.spec.given_model import given_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, that holds a model in every form."""
    monkeypatch.chdir(tmp_path)
    for name in ("model.py", "w.safetensors", "net.pt2", "net.onnx", "notes.txt", "old.torchscript"):
        (tmp_path / name).write_text("")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as f:
        for name in ("script/constants.pkl", "script/code/__torch__.py", "script/data.pkl"):
            f.writestr(name, "")
    return tmp_path


def given(model: str, weights: str | None = None) -> Path | TorchSource:
    return given_model(model, Path(weights) if weights else None, order="autopilot init MODEL")


def test_files_and_folders_are_taken_as_they_are(folder: Path) -> None:
    """What is no PyTorch model is looked at by others."""
    assert given("net.onnx") == Path("net.onnx")
    assert given(".") == Path()


def test_exported_program_is_a_whole_model(folder: Path) -> None:
    """A .pt2 file needs nothing beside it."""
    assert given("net.pt2") == TorchSource(program=folder / "net.pt2")


def test_code_goes_with_its_weights(folder: Path) -> None:
    """As ``{code, weights}`` in a spec, with absolute paths."""
    found = given("model.py:build", "w.safetensors")

    assert found == TorchSource(code=f"{folder / 'model.py'}:build", weights=folder / "w.safetensors")


@pytest.mark.parametrize(
    ("model", "weights", "words"),
    [
        ("script.pt", None, ["script.pt: is TorchScript", "torch.export.save"]),
        ("old.torchscript", None, ["is TorchScript", "torch.export.save"]),
        ("model.py:build", "script.pt", ["script.pt: is TorchScript", "torch.export.save"]),
        ("w.safetensors", None, ["weights of PyTorch", "model.py:build --weights"]),
        ("model.py:build", None, ["without its weights", "--weights model.safetensors"]),
        ("model.py", None, ["names no function", "model.py:build"]),
        ("model.py:", "w.safetensors", ["names no function"]),
        ("model.py:build", "notes.txt", ["none of .safetensors"]),
        ("net.onnx", "w.safetensors", ["whole model"]),
    ],
)
def test_half_a_model_is_told_what_to_write(folder: Path, model: str, weights: str | None, words: list[str]) -> None:
    """TorchScript, weights alone and code alone."""
    with pytest.raises(ModelError) as caught:
        given(model, weights)

    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("model", "weights"), [("gone.onnx", None), ("gone.py:build", "w.safetensors"), ("model.py:build", "gone.pt")]
)
def test_missing_file_is_named(folder: Path, model: str, weights: str | None) -> None:
    """The one that isn't there, not the other."""
    with pytest.raises(BadInput, match=r"gone\.\w+ does not exist"):
        given(model, weights)
