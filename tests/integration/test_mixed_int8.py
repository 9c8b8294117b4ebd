"""Mixed precision: the groups that int8 hurts most stay in float; one ranking serves every number of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from autopilot.contracts import BuildContext
from autopilot.domain import Scalar
from autopilot.errors import Unsupported
from autopilot.model.int8 import int8_audit
from autopilot.techniques import mixed_int8, static_int8
from tests.models import MAKERS, F, Samples, Weights, model_of, node, split_for, value, write

pytestmark = pytest.mark.integration

LAYERS = 5
FRAGILE = 2
WIDTH = 24


def fragile() -> onnx.ModelProto:
    """Five MatMuls; one weight of the third is so large that per-tensor int8 leaves the others no bits."""
    w = Weights(21)
    nodes, x = [], "x"
    for i in range(LAYERS):
        weight = (w.rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
        if i == FRAGILE:
            weight[0, 0] = 60.0
        nodes += [
            node("MatMul", [x, w.put(f"w{i}", weight)], [f"m{i}"], name=f"layer{i}"),
            node("Tanh", [f"m{i}"], [f"t{i}"], name=f"tanh{i}"),
        ]
        x = f"t{i}"
    return model_of(nodes, [value("x", F, ["N", WIDTH])], [value(x, F, ["N", WIDTH])], w)


def context_for(model: onnx.ModelProto, folder: Path) -> BuildContext:
    """Calibration data in memory, one thread."""
    split: Samples = split_for(model, 48, seed=1)
    return BuildContext(split, folder / "scratch", 1)  # type: ignore[arg-type]


def build(model: onnx.ModelProto, folder: Path, name: str = "built", **params: Scalar) -> Path:
    """The built file; the scratch folder is shared by builds in ``folder``."""
    source, target = write(model, folder / "source.onnx"), folder / name
    target.mkdir(parents=True)
    defaults: Mapping[str, Scalar] = {k: d.default for k, d in mixed_int8.TECHNIQUE.parameters.items()}
    mixed_int8.apply(source, target, {**defaults, **params}, context_for(model, folder))
    return target / "model.onnx"


def float_nodes(path: Path) -> set[str]:
    """Names of the products whose weight is still stored as floats."""
    graph = onnx.load(path).graph
    stored = {t.name for t in graph.initializer if t.data_type == F}
    return {n.name for n in graph.node if n.op_type in ("MatMul", "Gemm", "Conv") and n.input[1] in stored}


def error(source: Path, built: Path) -> float:
    """Root mean square difference of the first output, on samples that calibration didn't see."""
    feed = split_for(onnx.load(source), 64).feed(slice(0, 64))
    outputs = [
        ort.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(None, feed)[0] for p in (source, built)
    ]
    return float(np.sqrt(np.mean((outputs[0] - outputs[1]) ** 2)))


def test_fragile_layer_is_found_and_left_in_float(tmp_path: Path) -> None:
    """With one float group the damage of static int8 shrinks to a fraction."""
    model = fragile()
    built = build(model, tmp_path, float_groups=1, rank="divergence", per_channel=False)
    defaults = {k: d.default for k, d in static_int8.TECHNIQUE.parameters.items()}
    (tmp_path / "static").mkdir()
    source = tmp_path / "source.onnx"
    static_int8.apply(source, tmp_path / "static", {**defaults, "per_channel": False}, context_for(model, tmp_path))

    assert float_nodes(built) == {f"layer{FRAGILE}"}
    assert error(source, built) < 0.3 * error(source, tmp_path / "static" / "model.onnx")


def test_each_group_more_in_float_is_one_product_less_in_int8(tmp_path: Path) -> None:
    """The claim shrinks with the float groups, and what is claimed runs in int8."""
    model = fragile()
    for k in (1, 2, 4):
        built = build(model, tmp_path, f"k{k}", float_groups=k)
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"k{k}.onnx")
        ort.InferenceSession(str(built), options, providers=["CPUExecutionProvider"])

        audit = int8_audit(built, tmp_path / f"k{k}.onnx")

        assert len(float_nodes(built)) == k
        assert audit.claimed == audit.executed == LAYERS - k


def test_ranking_is_measured_once_for_every_number_of_groups(tmp_path: Path) -> None:
    """All numbers of float groups and both orders share one table, which a report can read."""
    model = fragile()
    build(model, tmp_path, "a", float_groups=1)
    [table] = (tmp_path / "scratch" / "sensitivity").iterdir()
    written = table.stat().st_ino, table.read_text()

    build(model, tmp_path, "b", float_groups=3)
    build(model, tmp_path, "c", float_groups=2, rank="divergence")

    assert list((tmp_path / "scratch" / "sensitivity").iterdir()) == [table]
    assert (table.stat().st_ino, table.read_text()) == written
    stored = json.loads(table.read_text())
    assert [g["nodes"] for g in stored["groups"]] == [[f"layer{i}"] for i in range(LAYERS)]
    assert stored["float_ms"] > 0
    assert all(g["divergence"] > 0 for g in stored["groups"])
    build(model, tmp_path, "d", float_groups=1, per_channel=False)
    assert len(list((tmp_path / "scratch" / "sensitivity").iterdir())) == 2


def test_damaged_table_is_measured_again(tmp_path: Path) -> None:
    """A table that can't be read costs a ranking, not the build."""
    build(fragile(), tmp_path, "a", rank="divergence")
    [table] = (tmp_path / "scratch" / "sensitivity").iterdir()
    table.write_text('{"float_ms": 1.0}')

    build(fragile(), tmp_path, "b", rank="divergence")

    assert len(json.loads(table.read_text())["groups"]) == LAYERS


@pytest.mark.parametrize("name", ["cnn", "cnn_fixed_batch", "encoder", "detector"])
def test_other_models_are_built_too(name: str, tmp_path: Path) -> None:
    """Convolutions, fixed batches, attention and control flow: one group stays in float."""
    built = build(MAKERS[name](), tmp_path, float_groups=1)

    assert len(float_nodes(built)) == 1


def test_as_many_float_groups_as_there_are_is_unsupported(tmp_path: Path) -> None:
    """Nothing would be left to quantize; the message says how many groups there are."""
    with pytest.raises(Unsupported, match=f"5 groups of {LAYERS}"):
        build(fragile(), tmp_path, float_groups=LAYERS)

    assert not (tmp_path / "scratch" / "sensitivity").exists()


def test_model_of_one_group_is_refused_in_the_same_words_whatever_number_is_kept(tmp_path: Path) -> None:
    """The search takes what two refusals for one reason share for the reason, and tries no third."""
    w = Weights(3)
    weight = w.put("w", w.rng.standard_normal((WIDTH, WIDTH)).astype(np.float32))
    model = model_of(
        [node("MatMul", ["x", weight], ["y"])], [value("x", F, ["N", WIDTH])], [value("y", F, ["N", WIDTH])], w
    )
    said = []
    for keep in (1, 4):
        with pytest.raises(Unsupported) as refused:
            build(model, tmp_path, f"built{keep}", float_groups=keep)
        said.append(refused.value.message)

    assert said[0] == said[1]
    assert "one group" in said[0]


def test_quantized_model_is_unsupported(tmp_path: Path) -> None:
    """What is int8 already has no float groups to rank."""
    with pytest.raises(Unsupported, match="already"):
        build(MAKERS["qdq"](), tmp_path)
