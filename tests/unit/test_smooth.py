"""SmoothQuant: the same computation with outliers moved into weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.contracts import BuildContext
from autopilot.errors import Unsupported
from autopilot.techniques import _onnx, _smooth, _static, static_int8
from tests import models
from tests.models import F, Weights, model_of, node, value

WIDTH = 32


def context(model: onnx.ModelProto, tmp_path: Path) -> BuildContext:
    """32 samples that fit ``model``."""
    return BuildContext(models.split_for(model, 32), tmp_path / "scratch", 1)  # type: ignore[arg-type]


def outliers(*, residual: bool) -> onnx.ModelProto:
    """LayerNormalization with one channel 60 times the others, then a product; with or without a second reader."""
    w = Weights()
    scale = np.ones(WIDTH, np.float32)
    scale[3] = 60.0
    nodes = [
        node("LayerNormalization", ["x", w.put("g", scale), w.normal("b", WIDTH)], ["n"], name="norm"),
        node("MatMul", ["n", w.normal("w", WIDTH, WIDTH)], ["m"], name="product"),
        node("Tanh", ["m"], ["t"], name="tanh"),
    ]
    nodes.append(node("Add", ["t", "n"] if residual else ["t", "t"], ["y"], name="sum"))
    return model_of(nodes, [value("x", F, ["N", WIDTH])], [value("y", F, ["N", WIDTH])], w)


def smoothed(model: onnx.ModelProto, tmp_path: Path, alpha: float = 0.5) -> _smooth.Smoothed:
    """``model`` after smoothing of all its products."""
    source = models.write(model, tmp_path / "model.onnx")
    names = [n.name for n in model.graph.node if n.op_type in ("MatMul", "Gemm")]
    return _smooth.smooth(model, names, alpha, source, context(model, tmp_path))


def answers(model: onnx.ModelProto, tmp_path: Path, name: str) -> list[np.ndarray]:
    """Outputs on the 32 samples."""
    runner = _onnx.session(models.write(model, tmp_path / name))
    return list(runner.run(None, models.split_for(model, 32).feed(slice(0, 32))))


def test_layer_norm_takes_the_factor_when_nothing_else_reads_it(tmp_path: Path) -> None:
    """Folding adds no node, and the outlier channel has come nearer to the others."""
    model = outliers(residual=False)

    found = smoothed(model, tmp_path)

    assert found.added == ()
    assert [n.op_type for n in found.model.graph.node] == [n.op_type for n in model.graph.node]
    gamma = {t.name: onnx.numpy_helper.to_array(t) for t in found.model.graph.initializer}
    scale = gamma[found.model.graph.node[0].input[1]]
    assert scale[3] / np.median(np.abs(scale)) < 20


def test_other_readers_keep_the_unscaled_tensor(tmp_path: Path) -> None:
    """A residual beside the product reads what it read before: the division is a Mul of the product's own."""
    found = smoothed(outliers(residual=True), tmp_path)

    inputs = {n.name: list(n.input) for n in found.model.graph.node}
    assert found.added == ("n_smoothing",)
    assert inputs["sum"][1] == "n"
    assert inputs["product"][0] == "n_smooth"
    onnx.checker.check_model(found.model, full_check=True)


def test_mul_and_add_by_vectors_take_the_factor(tmp_path: Path) -> None:
    """A normalization written out, as older exports have it, is folded into its own scale and shift."""
    w = Weights()
    nodes = [
        node("Tanh", ["x"], ["t"], name="tanh"),
        node("Mul", ["t", w.normal("g", WIDTH)], ["s"], name="scale"),
        node("Add", [w.normal("b", WIDTH), "s"], ["n"], name="shift"),
        node("Gemm", ["n", w.normal("w", 8, WIDTH), w.normal("c", 8)], ["y"], name="product", transB=1),
    ]
    model = model_of(nodes, [value("x", F, ["N", WIDTH])], [value("y", F, ["N", 8])], w)

    found = smoothed(model, tmp_path)

    assert found.added == ()
    before, after = answers(model, tmp_path, "a.onnx"), answers(found.model, tmp_path, "b.onnx")
    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-4)


def test_scalar_that_is_part_of_gelu_stays(tmp_path: Path) -> None:
    """A Mul by 0.5 belongs to a pattern that runtimes fuse: it isn't turned into one by a vector."""
    w = Weights()
    nodes = [
        node("Mul", ["x", w.put("half", np.float32(0.5))], ["h"], name="halve"),
        node("MatMul", ["h", w.normal("w", WIDTH, 8)], ["y"], name="product"),
    ]
    model = model_of(nodes, [value("x", F, ["N", WIDTH])], [value("y", F, ["N", 8])], w)

    found = smoothed(model, tmp_path)

    assert found.added == ("h_smoothing",)
    assert list(found.model.graph.node[0].input) == ["x", "half"]


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_encoder_answers_as_before(tmp_path: Path, alpha: float) -> None:
    """Smoothing alone, at any strength, changes no answer beyond float rounding."""
    model = _onnx.prepare_for_quantization(models.encoder(2))

    found = smoothed(model, tmp_path, alpha)

    assert found.added
    for before, after in zip(answers(model, tmp_path, "a.onnx"), answers(found.model, tmp_path, "b.onnx"), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)


def error(model: onnx.ModelProto, tmp_path: Path, smooth: float) -> float:
    """Mean absolute difference of static int8's answers from the float model's."""
    folder = tmp_path / f"int8-{smooth}"
    folder.mkdir()
    params = {k: d.default for k, d in static_int8.TECHNIQUE.parameters.items()} | {"smooth": smooth}
    source = models.write(model, tmp_path / "model.onnx")
    static_int8.apply(source, folder, params, context(model, tmp_path))
    built = onnx.load(folder / "model.onnx")
    pairs = zip(answers(model, tmp_path, "a.onnx"), answers(built, tmp_path, "b.onnx"), strict=True)
    return float(np.mean([np.abs(a - b).mean() for a, b in pairs]))


@pytest.mark.parametrize("residual", [False, True], ids=["folded", "own_mul"])
def test_static_int8_is_nearer_with_smoothing_when_a_channel_sticks_out(tmp_path: Path, residual: bool) -> None:
    """With one channel 60 times the others, int8 loses at least a third less."""
    model = outliers(residual=residual)

    assert error(model, tmp_path, 0.5) < 0.67 * error(model, tmp_path, 0.0)


def test_smoothing_mul_stays_in_float(tmp_path: Path) -> None:
    """An outlier rounded before it is divided would have done its harm."""
    model = models.encoder(1)
    source = models.write(model, tmp_path / "model.onnx")

    ready = _static.prepare(source, context(model, tmp_path), smooth=0.5)

    added = {n.name for n in ready.model.graph.node if n.name.endswith("_smoothing")}
    assert added
    assert added == ready.barred
    assert not added & _static.extended(ready, _static.choose(ready, "all"))


def test_strength_of_nothing_is_one_recipe() -> None:
    """A space file that says 0 and one that says 0.0 build the same."""
    found = static_int8.TECHNIQUE.normalise({"smooth": 0})["smooth"]

    assert repr(found) == "0.0"


def test_model_without_products_is_refused(tmp_path: Path) -> None:
    """Convolutions aren't smoothed: a recipe that asks for it is no other variant."""
    w = Weights()
    nodes = [node("Conv", ["x", w.normal("w", 4, 3, 3, 3)], ["y"], name="conv")]
    model = model_of(nodes, [value("x", F, ["N", 3, 8, 8])], [value("y", F, ["N", 4, 6, 6])], w)

    with pytest.raises(Unsupported, match="no MatMul or Gemm"):
        smoothed(model, tmp_path)


def test_peaks_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another strength of the same model reads the channels' peaks from the scratch folder."""
    smoothed(outliers(residual=False), tmp_path)
    monkeypatch.setattr(_smooth, "_measured", lambda *args: pytest.fail("measured again"))

    assert smoothed(outliers(residual=False), tmp_path, 0.8).added == ()


@given(
    x=st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=8),
    alpha=st.sampled_from([0.3, 0.5, 0.8]),
)
@settings(max_examples=50)
def test_strengths_are_positive_finite_and_order_activations(x: list[float], alpha: float) -> None:
    """No factor is zero or infinite, and a larger channel is never divided by less where weights are equal."""
    peaks = np.float32(x)

    found = _smooth.strengths(peaks, np.ones_like(peaks), alpha)

    assert np.all(np.isfinite(found))
    assert np.all(found > 0)
    positive = peaks > 0
    order = np.argsort(peaks[positive])
    assert np.all(np.diff(found[positive][order]) >= 0)
