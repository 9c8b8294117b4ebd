"""GELU and layer norms that older exporters spell out become torch's own layers; what only looks alike doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import NodeProto

torch = pytest.importorskip("torch", reason="the extra is missing: pip install -c constraints.txt -e '.[torch]'")

from autopilot.torch_model import from_onnx  # noqa: E402
from tests import models  # noqa: E402
from tests.models import Weights, node  # noqa: E402

pytestmark = pytest.mark.integration

X = np.random.default_rng(0).standard_normal((3, 5, 8)).astype(np.float32) * 2


def number(w: Weights, name: str, value: float) -> str:
    return w.put(name, np.float32(value))


def halves(w: Weights, order: str, rest: str, half: float) -> list[NodeProto]:
    """x / 2 times ``rest``, multiplied in one of three orders."""
    number(w, "half", half)
    if order == "half first":
        return [node("Mul", ["half", rest], ["h"]), node("Mul", ["x", "h"], ["y"])]
    if order == "half last":
        return [node("Mul", ["x", rest], ["h"]), node("Mul", ["h", "half"], ["y"])]
    return [node("Mul", ["x", "half"], ["h"]), node("Mul", ["h", rest], ["y"])]


def erf(w: Weights, *, order: str = "half last", half: float = 0.5, root: float = 2**0.5, by: str = "Div") -> Any:
    """GELU by erf."""
    number(w, "root", root if by == "Div" else 1 / root)
    number(w, "one", 1.0)
    return [
        node(by, ["x", "root"], ["d"]), node("Erf", ["d"], ["e"]), node("Add", ["e", "one"], ["a"]),
        *halves(w, order, "a", half),
    ]  # fmt: skip


def tanh(
    w: Weights, *, order: str = "half first", half: float = 0.5, cube: str = "Pow", share: float = 0.044715
) -> Any:
    """GELU by tanh."""
    for name, value in (("three", 3.0), ("share", share), ("root", (2 / np.pi) ** 0.5), ("one", 1.0)):
        number(w, name, value)
    third = [node("Pow", ["x", "three"], ["c"])]
    if cube == "Mul":
        third = [node("Mul", ["x", "x"], ["s"]), node("Mul", ["s", "x"], ["c"])]
    return [
        *third, node("Mul", ["share", "c"], ["sc"]), node("Add", ["x", "sc"], ["xs"]),
        node("Mul", ["root", "xs"], ["r"]), node("Tanh", ["r"], ["t"]), node("Add", ["t", "one"], ["a"]),
        *halves(w, order, "a", half),
    ]  # fmt: skip


def norm(w: Weights, *, square: str = "Pow", bias: bool = True, axis: int = -1, power: float = 2.0) -> Any:
    """Layer norm as it was exported before ONNX had it."""
    number(w, "two", power)
    number(w, "epsilon", 1e-6)
    w.put("ln.weight", np.linspace(0.5, 1.5, 8, dtype=np.float32))
    w.put("ln.bias", np.linspace(-1, 1, 8, dtype=np.float32))
    squared = node("Pow", ["d", "two"], ["s"]) if square == "Pow" else node("Mul", ["d", "d"], ["s"])
    last = node("Add", ["n", "ln.bias"], ["y"]) if bias else node("Identity", ["n"], ["y"])
    return [
        node("ReduceMean", ["x"], ["m"], axes=[axis]), node("Sub", ["x", "m"], ["d"]), squared,
        node("ReduceMean", ["s"], ["v"], axes=[-1]), node("Add", ["v", "epsilon"], ["ve"]),
        node("Sqrt", ["ve"], ["r"]), node("Div", ["d", "r"], ["q"]), node("Mul", ["q", "ln.weight"], ["n"]), last,
    ]  # fmt: skip


def layers(make: Any, settings: dict[str, Any], folder: Path) -> list[Any]:
    """The layers of the converted model, whose answers are those of ONNX Runtime."""
    w = Weights()
    shape: list[int | str] = ["N", 5, 8]
    model = models.model_of(
        make(w, **settings), [models.value("x", models.F, shape)], [models.value("y", models.F, shape)], w, opset=13
    )
    path = models.write(model, folder / "model.onnx")
    options = ort.SessionOptions()
    # ONNX Runtime's own fusion (1.32) takes the mean of fourth powers for a variance.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]
    converted = from_onnx(path)

    with torch.no_grad():
        np.testing.assert_allclose(converted.outputs({"x": X})["y"].numpy(), expected, rtol=1e-5, atol=1e-5)
    return list(converted.module.children())


@pytest.mark.parametrize("order", ["half first", "half last", "x first"])
@pytest.mark.parametrize(("make", "settings", "kind"), [
    (erf, {}, "none"), (erf, {"by": "Mul"}, "none"), (tanh, {}, "tanh"), (tanh, {"cube": "Mul"}, "tanh"),
])  # fmt: skip
def test_gelu_is_a_layer(make: Any, settings: dict[str, Any], kind: str, order: str, tmp_path: Path) -> None:
    """However its factors are ordered."""
    (layer,) = layers(make, {**settings, "order": order}, tmp_path)

    assert isinstance(layer, torch.nn.GELU)
    assert layer.approximate == kind


@pytest.mark.parametrize("settings", [{}, {"square": "Mul"}, {"bias": False}, {"axis": 2}])
def test_layer_norm_is_a_layer(settings: dict[str, Any], tmp_path: Path) -> None:
    """With its own epsilon, its scale, and its bias where it has one."""
    (layer,) = layers(norm, settings, tmp_path)

    assert isinstance(layer, torch.nn.LayerNorm)
    assert layer.eps == pytest.approx(1e-6)
    assert (layer.bias is not None) == settings.get("bias", True)


@pytest.mark.parametrize(("make", "settings"), [
    (erf, {"half": 0.6}), (erf, {"root": 1.5}), (tanh, {"half": 1.0}), (tanh, {"share": 0.05}),
    (norm, {"axis": 1}), (norm, {"power": 4.0}),
])  # fmt: skip
def test_what_only_looks_alike_stays_as_it_is(make: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    """Another factor, power or dimension computes something else."""
    found = layers(make, settings, tmp_path)

    assert not any(isinstance(m, torch.nn.GELU | torch.nn.LayerNorm) for m in found)
