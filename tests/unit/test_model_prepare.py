"""Graph clean-up before quantization computes the same; the numerical gate notices what doesn't."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from autopilot.contracts import BuildContext
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.model.graph import all_graphs, nodes
from autopilot.techniques import _onnx
from autopilot.techniques._prepare import gemm_to_matmul
from tests import models


def run(model: ModelProto, feed: dict[str, models.Array], tmp_path: Path) -> list[models.Array]:
    """Outputs of a model in memory."""
    path = tmp_path / "run.onnx"
    _onnx.save(model, path)
    outputs: list[models.Array] = _onnx.session(path).run(None, feed)
    return outputs


def context(model: ModelProto) -> BuildContext:
    """Samples for one of the test models."""
    return BuildContext(models.split_for(model, 16), Path(), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", models.MAKERS)
def test_prepared_model_answers_the_same(name: str, tmp_path: Path) -> None:
    """Lifting, folding, renaming and dropping change no output."""
    model = models.MAKERS[name]()
    before = model.SerializeToString()
    feed = models.split_for(model, 16).feed(slice(0, 2))

    prepared = _onnx.prepare_for_quantization(model)

    assert model.SerializeToString() == before
    for a, b in zip(run(model, feed, tmp_path), run(prepared, feed, tmp_path), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", models.MAKERS)
def test_prepared_model_has_the_form_quantizers_need(name: str) -> None:
    """No Constant nodes, no value_info, no initializer among the inputs, every node with its own name."""
    prepared = _onnx.prepare_for_quantization(models.MAKERS[name]())

    names = [n.name for n in nodes(prepared)]
    assert all(names)
    assert len(names) == len(set(names))
    for graph in all_graphs(prepared):
        assert not graph.value_info
        assert not {i.name for i in graph.input} & {t.name for t in graph.initializer}
        assert "Constant" not in {n.op_type for n in graph.node}


@pytest.mark.parametrize(
    ("name", "weights"), [("constant_weights", 2), ("half_weights", 2), ("cnn", 3), ("detector", 2)]
)
def test_every_stored_weight_is_found(name: str, weights: int) -> None:
    """Weights count wherever they were: Constant nodes, float16 behind a Cast, initializers."""
    prepared = _onnx.prepare_for_quantization(models.MAKERS[name]())

    assert len(_onnx.matmul_like_nodes(prepared)) == weights


def test_model_local_functions_are_inlined(tmp_path: Path) -> None:
    """A torch export may call functions of its own; quantizers don't look into them."""
    square = helper.make_function(
        "local", "Square", ["a"], ["b"], [helper.make_node("Mul", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    graph = helper.make_graph(
        [helper.make_node("Square", ["x"], ["y"], domain="local")],
        "g",
        [models.value("x", TensorProto.FLOAT, [3])],
        [models.value("y", TensorProto.FLOAT, [3])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, functions=[square], opset_imports=imports, ir_version=8)

    prepared = _onnx.prepare_for_quantization(model)

    assert [n.op_type for n in prepared.graph.node] == ["Mul"]
    (got,) = run(prepared, {"x": np.array([1, 2, 3], np.float32)}, tmp_path)
    assert got.tolist() == [1, 4, 9]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("shape", [(1, 4), (1, 1), (1,), ()])
def test_gemm_bias_becomes_a_number_a_column(shape: tuple[int, ...], transposed: int, tmp_path: Path) -> None:
    """Quantizers know a bias of shape [N] alone; one that broadcasts from less computes the same when spread."""
    w = models.Weights()
    inputs = ["x", w.normal("w", *((4, 8) if transposed else (8, 4))), w.put("b", np.full(shape, 0.7, np.float32))]
    model = models.model_of(
        [models.node("Gemm", inputs, ["y"], name="g", transB=transposed)],
        [models.value("x", models.F, ["N", 8])],
        [models.value("y", models.F, ["N", 4])],
        w,
    )
    feed = {"x": np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)}

    prepared = _onnx.prepare_for_quantization(model)

    bias = prepared.graph.node[0].input[2]
    assert [list(t.dims) for t in prepared.graph.initializer if t.name == bias] == [[4]]
    np.testing.assert_array_equal(run(prepared, feed, tmp_path)[0], run(model, feed, tmp_path)[0])


def test_gemm_bias_that_differs_by_row_stays(tmp_path: Path) -> None:
    """A bias of one number a row has no form of one number a column."""
    w = models.Weights()
    inputs = ["x", w.normal("w", 8, 4), w.normal("b", 3, 1)]
    model = models.model_of(
        [models.node("Gemm", inputs, ["y"], name="g")],
        [models.value("x", models.F, [3, 8])],
        [models.value("y", models.F, [3, 4])],
        w,
    )

    prepared = _onnx.prepare_for_quantization(model)

    assert list(prepared.graph.node[0].input) == inputs


def test_operator_set_named_twice_is_named_once() -> None:
    """skl2onnx names ONNX's own set twice, under either of its names; the later version counts."""
    model = models.MAKERS["cnn"]()
    version = next(e.version for e in model.opset_import if not e.domain)
    model.opset_import.append(helper.make_opsetid("ai.onnx", version))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))

    prepared = _onnx.prepare_for_quantization(model)

    assert [(e.domain, e.version) for e in prepared.opset_import] == [("", version), ("ai.onnx.ml", 1)]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_becomes_matmul_and_add(transposed: int, tmp_path: Path) -> None:
    """With either layout of the weight the result is the same."""
    w = models.Weights()
    shape = (4, 8) if transposed else (8, 4)
    inputs = ["x", w.normal("w", *shape), w.normal("b", 4)]
    model = models.model_of(
        [models.node("Gemm", inputs, ["y"], name="g", transB=transposed)],
        [models.value("x", models.F, ["N", 8])],
        [models.value("y", models.F, ["N", 4])],
        w,
    )
    feed = {"x": np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)}
    expected = run(model, feed, tmp_path)[0]

    gemm_to_matmul(model)

    assert [n.op_type for n in model.graph.node] == ["MatMul", "Add"]
    np.testing.assert_allclose(run(model, feed, tmp_path)[0], expected, rtol=1e-5, atol=1e-6)


def test_opset_is_converted_where_older(tmp_path: Path) -> None:
    """Opset 11 becomes 13 with the same answers; a newer one is left as it is."""
    model = models.cnn(opset=11)
    feed = models.split_for(model, 4).feed(slice(0, 4))

    converted = _onnx.ensure_opset(model, 13)

    assert _onnx.opset(converted) == 13
    np.testing.assert_allclose(run(model, feed, tmp_path)[0], run(converted, feed, tmp_path)[0], rtol=1e-5, atol=1e-6)
    assert _onnx.ensure_opset(converted, 12) is converted


def test_opset_with_foreign_operators_is_not_converted() -> None:
    """ONNX's converter can't know operators of another domain: Unsupported, with both numbers."""
    model = models.cnn(opset=11)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[1].domain, model.graph.node[1].op_type = "com.microsoft", "Gelu"

    with pytest.raises(Unsupported, match="opset 11 is below 13"):
        _onnx.ensure_opset(model, 13)


def test_gate_passes_the_same_model(tmp_path: Path) -> None:
    """A model against itself is no difference."""
    path = models.write(models.encoder(), tmp_path / "m.onnx")

    _onnx.check_same(path, path, context(models.encoder()), rtol=0.0, atol=0.0)


def test_gate_refuses_a_changed_weight(tmp_path: Path) -> None:
    """A slightly different model has WRONG_NUMERICS, and the message names the output."""
    source = models.write(models.cnn(), tmp_path / "a.onnx")
    changed = models.cnn()
    bias = next(t for t in changed.graph.initializer if t.name == "b3")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.05), "b3"))
    built = models.write(changed, tmp_path / "b.onnx")

    with pytest.raises(VariantFailed, match="'logits' differs") as caught:
        _onnx.check_same(source, built, context(models.cnn()))

    assert caught.value.failure is Failure.WRONG_NUMERICS


def test_gate_without_real_inputs_is_unsupported(tmp_path: Path) -> None:
    """Nothing passes a gate that had nothing to look at."""
    path = models.write(models.cnn(), tmp_path / "m.onnx")

    with pytest.raises(Unsupported, match="real inputs"):
        _onnx.check_same(path, path, BuildContext(None, tmp_path, 1))


@pytest.mark.parametrize(
    ("expected", "got", "message"),
    [
        (np.zeros(3, np.float32), np.zeros(4, np.float32), "became"),
        (np.zeros(3, np.float32), np.zeros(3, np.float64), "became"),
        (np.zeros(3, np.float32), np.array([0, np.nan, 0], np.float32), "not finite"),
        (np.array([1, 2, 3]), np.array([1, 2, 4]), "differs in 1 of 3"),
        (np.array([1e3, 0.0], np.float32), np.array([1e3, 2.0], np.float32), "differs from its source"),
    ],
)
def test_difference_is_noticed(expected: models.Array, got: models.Array, message: str) -> None:
    """Shape, dtype, NaN, integers and magnitude each count."""
    with pytest.raises(VariantFailed, match=message):
        _onnx.difference("y", expected, got, 1e-3, 1e-4)


def test_masks_of_minus_infinity_are_no_difference() -> None:
    """Values that are infinite in both are equal."""
    values = np.array([-np.inf, 1.0, np.nan], np.float32)

    _onnx.difference("y", values, values.copy(), 0.0, 0.0)


def test_batch_is_told_by_inputs_that_follow_it(tmp_path: Path) -> None:
    """A state of shape [1, N, 16] and a scalar don't make a fixed batch; a fixed image batch does."""
    detector = models.write(models.detector(), tmp_path / "d.onnx")
    fixed = models.write(models.cnn(batch=2), tmp_path / "c.onnx")

    assert _onnx.fixed_batch(_onnx.session(detector), models.split_for(models.detector())) is None  # type: ignore[arg-type]
    assert _onnx.fixed_batch(_onnx.session(fixed), models.split_for(models.cnn(batch=2))) == 2  # type: ignore[arg-type]
