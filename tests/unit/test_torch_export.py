"""A PyTorch model where torch isn't installed, and what an export's folder remembers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from autopilot.bench.child import ChildLimits
from autopilot.build import torch_export
from autopilot.data.example import Example
from autopilot.errors import ModelError
from autopilot.search.prepare import resolve_model
from autopilot.spec import Problem, TorchSource
from autopilot.temporary import host
from autopilot.torch_model import missing
from autopilot.torch_model.messages import listed


def code_source(folder: Path) -> TorchSource:
    """Code and weights that nobody loads here."""
    (folder / "model.py").write_text("def build(): ...\n")
    (folder / "w.safetensors").write_bytes(b"")
    return TorchSource(code=f"{folder / 'model.py'}:build", weights=folder / "w.safetensors")


def test_missing_torch_is_bad_input_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any child starts: what is missing and how to install it."""
    monkeypatch.setattr(torch_export, "missing", lambda *names: f"{names[0]} is not installed.")
    example = Example({"x": np.zeros((2, 3))}, 2, ("x",), batched=True)

    with pytest.raises(ModelError) as caught:
        torch_export.export_torch(
            code_source(tmp_path), example, folder=tmp_path / "out", limits=ChildLimits(1.0), threads=1
        )

    assert caught.value.exit_code == 2
    assert "torch is not installed. Install the extra" in str(caught.value)
    assert "pip install -c constraints.txt" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_missing_names_the_first_that_is_not_there() -> None:
    """Found out without importing anything."""
    assert missing("json", "no_such_module") == "no-such-module is not installed."
    assert missing("json") is None


def test_source_digest_covers_code_weights_and_neighbours(tmp_path: Path) -> None:
    """Whatever the network may be made of changes the name that its export is kept under."""
    source = code_source(tmp_path)
    seen = [torch_export.source_digest(source)]
    for name, text in (("model.py", "def build(): 1\n"), ("layers.py", "x = 1\n"), ("w.safetensors", "w")):
        (tmp_path / name).write_text(text)
        seen.append(torch_export.source_digest(source))

    assert len(set(seen)) == 4


def test_note_belongs_to_exports_only(tmp_path: Path) -> None:
    """Beside any other ONNX file there is none."""
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert torch_export.export_note(tmp_path / "model.onnx") == ""

    (tmp_path / "export.json").write_text(json.dumps({"note": "one sample a request"}))
    assert torch_export.export_note(tmp_path / "model.onnx") == "one sample a request"


@pytest.mark.parametrize(("n", "text"), [(1, "a"), (3, "a, b, c"), (5, "a, b, c and 2 more")])
def test_long_lists_are_cut(n: int, text: str) -> None:
    """A message names a few."""
    assert listed(list("abcdef")[:n]) == text


def test_start_of_a_run_removes_what_killed_exports_left(tmp_path: Path) -> None:
    """Whatever model the spec names by now; finished exports stay."""
    folder = tmp_path / "work" / "model"
    for name in ("staging-a1b2c3d4", f"autopilot-export-{host()}-a1b2c3d4", "torch-0123456789abcdef"):
        (folder / name).mkdir(parents=True)
    problem = SimpleNamespace(model=tmp_path / "model.onnx")
    resolve_model(cast(Problem, problem), tmp_path / "work")

    assert [p.name for p in folder.iterdir()] == ["torch-0123456789abcdef"]
