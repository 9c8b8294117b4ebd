"""``model:`` in a spec: the PyTorch forms, and what those that aren't taken are told."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autopilot.errors import ModelError, SpecError
from autopilot.plugins import vocabulary
from autopilot.spec import Problem, TorchSource, parse_spec
from autopilot.spec.parse_model import is_torchscript

Parse = Callable[[Any], Problem]


def archive(path: Path, *names: str) -> Path:
    """A zip with empty members, as torch's files are zips."""
    with zipfile.ZipFile(path, "w") as f:
        for name in names:
            f.writestr(name, "")
    return path


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    """A spec in a folder that holds a model in every form, with ``model:`` as given."""
    for name in ("model.py", "valid.npz", "w.safetensors", "notes.txt"):
        (tmp_path / name).write_text("")
    archive(tmp_path / "net.pt2", "net/models/model.json")
    archive(tmp_path / "w.pt", "w/data.pkl", "w/data/0")
    archive(tmp_path / "script.pt", "script/constants.pkl", "script/code/__torch__.py", "script/data.pkl")
    raw = {"name": "n", "data": {"validation": "valid.npz"}, "metric": "accuracy", "budget": {"latency_p50_ms": 1}}
    return lambda model: parse_spec(raw | {"model": model}, tmp_path, vocabulary())


def test_exported_program_is_taken(parse: Parse, tmp_path: Path) -> None:
    """A .pt2 file is a whole model."""
    assert parse("net.pt2").model == TorchSource(program=(tmp_path / "net.pt2").resolve())


@pytest.mark.parametrize("weights", ["w.safetensors", "w.pt"])
def test_code_and_weights_are_taken(parse: Parse, tmp_path: Path, weights: str) -> None:
    """A function that builds the network, and a file of its weights, with absolute paths."""
    found = parse({"code": "model.py:build", "weights": weights}).model

    folder = tmp_path.resolve()
    assert found == TorchSource(code=f"{folder / 'model.py'}:build", weights=folder / weights)
    assert TorchSource.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("script.pt", ["'script.pt' is TorchScript", "torch.export.save"]),
        ({"code": "model.py:build", "weights": "script.pt"}, ["is TorchScript", "torch.export.save"]),
        ("w.pt", ["without the code", "code: model.py:build"]),
        ("w.safetensors", ["without the code", "code: model.py:build"]),
    ],
)
def test_half_a_model_is_refused(parse: Parse, model: Any, words: list[str]) -> None:
    """TorchScript and bare weights are told what to write instead."""
    with pytest.raises(ModelError) as caught:
        parse(model)

    assert all(word in str(caught.value) for word in words)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"code": "model.py:build"}, ["model.weights is missing"]),
        ({"weights": "w.pt"}, ["model.code is missing"]),
        ({"code": "model.py:build", "weights": 3}, ["model.weights should be text"]),
        ({"code": "model.py:build", "weight": "w.pt"}, ["unknown key 'model.weight'", "'weights'"]),
        ({"code": "model.py", "weights": "w.pt"}, ["names no function"]),
        ({"code": "gone.py:build", "weights": "w.pt"}, ["gone.py does not exist"]),
        ({"code": "model.py:build", "weights": "gone.pt"}, ["gone.pt does not exist"]),
        ({"code": "model.py:build", "weights": "notes.txt"}, ["none of .safetensors"]),
        ("gone.pt2", ["gone.pt2 does not exist"]),
    ],
)
def test_wrong_model_key_is_named(parse: Parse, model: Any, words: list[str]) -> None:
    """Missing parts, misspelt keys and files that aren't there."""
    with pytest.raises(SpecError) as caught:
        parse(model)

    assert all(word in str(caught.value) for word in words)


def test_only_archives_with_code_are_torchscript(tmp_path: Path) -> None:
    """A file of weights, an empty one and one that is missing are not."""
    (tmp_path / "empty").write_bytes(b"")

    assert is_torchscript(archive(tmp_path / "a", "a/constants.pkl", "a/code/x.py"))
    assert not is_torchscript(archive(tmp_path / "b", "b/constants.pkl", "b/data.pkl"))
    assert not is_torchscript(tmp_path / "empty")
    assert not is_torchscript(tmp_path / "gone")
