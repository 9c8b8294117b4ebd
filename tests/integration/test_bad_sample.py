"""A sample that the model can't take: bad input, named by its place in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from autopilot.cli import main

pytestmark = pytest.mark.integration

N, WORDS, BAD = 90, 20, 57


def write(folder: Path) -> None:
    """A text model of 20 words, and samples of which one has a word that isn't there."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(WORDS, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], name="lookup"),
        helper.make_node("ReduceSum", ["words", "axis"], ["out"], keepdims=0),
    ]
    stored = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "g", [ids], [out], stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    values = rng.integers(0, WORDS, size=(N, 3))
    values[BAD, 1] = 5000
    np.savez(folder / "valid.npz", ids=values, label=rng.integers(0, 4, size=N))
    spec = {
        "name": "words",
        "model": "model.onnx",
        "data": {"validation": "valid.npz"},
        "metric": "accuracy",
        "budget": {"size_mb": 1.0},
        "target": {"threads": 1},
        "search": {"trials": 1, "measure_cap": "0.2s"},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))


def test_index_beyond_an_embedding_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 with file, sample, array and value; not "the program failed" or "it crashed"."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)

    code = main(["run", "spec.yaml"])

    said = capsys.readouterr().err
    assert code == 2, said
    assert f"valid.npz: the model can't be run on sample {BAD} (counted from 0)" in said
    assert "'ids' holds 5000, where they hold 0 to 19" in said
    assert not (tmp_path / "runs").exists()
