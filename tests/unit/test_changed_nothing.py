"""Steps that would change nothing are refused: a recipe must not be credited with what wasn't done."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from autopilot.artifact import Artifact
from autopilot.build.cache import Cache
from autopilot.build_worker import _build
from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Scalar
from autopilot.errors import Unsupported
from autopilot.model import inspect
from autopilot.recipe import Step
from autopilot.techniques import _onnx, _qdq, float16, static_int8
from autopilot.techniques._smoke import refuse_unchanged
from tests import models
from tests.models import F, Weights, model_of, node, value

WIDTH = 8


def model(kinds: tuple[str, ...], weights: np.ndarray | None = None) -> onnx.ModelProto:
    """A chain of nodes of these kinds on vectors; MatMul and Min have a stored input, CumSum an axis."""
    stored = Weights()
    square = np.ones((WIDTH, WIDTH), np.float32) if weights is None else weights
    second = {"MatMul": square, "Min": np.ones(WIDTH, np.float32), "CumSum": np.array(1, np.int64)}
    names = ["x", *(f"t{i}" for i in range(len(kinds) - 1)), "y"]
    nodes = [
        node(kind, [names[i], *([stored.put(f"s{i}", second[kind])] if kind in second else [])], [names[i + 1]])
        for i, kind in enumerate(kinds)
    ]
    return model_of(nodes, [value("x", F, ["N", WIDTH])], [value("y", F, ["N", WIDTH])], stored)


def context(made: onnx.ModelProto, folder: Path) -> BuildContext:
    """32 samples that fit it."""
    return BuildContext(models.split_for(made, 32), folder / "scratch", 1)  # type: ignore[arg-type]


def defaults(technique: str) -> dict[str, object]:
    """Each parameter at its default."""
    declared = {"float16": float16.TECHNIQUE, "static_int8": static_int8.TECHNIQUE}[technique].parameters
    return {name: domain.default for name, domain in declared.items()}


@pytest.mark.parametrize("external", [False, True])
def test_file_that_is_the_sources_own_is_refused(tmp_path: Path, external: bool) -> None:
    """Weights beside it included: one other byte of them makes another model."""
    source = models.write(models.encoder(), tmp_path / "a" / "text.onnx", external=external)
    built = models.write(models.encoder(), tmp_path / "b" / "text.onnx", external=external)

    with pytest.raises(Unsupported, match="changed nothing"):
        refuse_unchanged(source, built)
    content = bytearray((weights := inspect(built).files[-1]).read_bytes())
    content[content.index(b"MatMul") if not external else 0] ^= 1
    weights.write_bytes(content)
    refuse_unchanged(source, built)


def test_build_of_a_step_that_changed_nothing_is_refused_and_remembered(tmp_path: Path) -> None:
    """Whichever technique it is, others' too; its name comes first, as search and users read it."""
    source = Artifact.of([models.write(models.cnn(), tmp_path / "model.onnx")])
    folder, cache = tmp_path / "built", Cache(tmp_path / "cache")
    folder.mkdir()

    def copied(source: Path, target: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
        shutil.copyfile(source, target / "model.onnx")

    toy = Technique("toy", Slot.GRAPH, 1, {}, copied, "for tests")
    with pytest.raises(Unsupported, match="toy: it changed nothing of this model"):
        _build(cache, "key", source, toy, Step("toy"), BuildContext(None, tmp_path, 1), folder)
    with pytest.raises(Unsupported, match="toy: it changed nothing of this model"):
        cache.take("key", parent=source.sha256, step=Step("toy"))


@pytest.mark.parametrize("kinds", [("CumSum", "Min"), ("Min",), ("CumSum", "CumSum", "Min")])
def test_float16_of_operators_that_stay_in_float32_is_refused(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """The converter would put roundings between them and compute as before."""
    made = model(kinds)
    source = models.write(made, tmp_path / "model.onnx")

    with pytest.raises(Unsupported, match="one that stays in float32"):
        float16.apply(source, tmp_path, {"scope": "compute"}, context(made, tmp_path))


@pytest.mark.parametrize("kinds", [("MatMul",), ("CumSum", "Min", "Relu"), ("MatMul", "CumSum", "Min")])
def test_float16_is_taken_where_one_operator_computes_in_it(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """Others may stay in float32."""
    made = model(kinds)
    source = models.write(made, tmp_path / "source.onnx")
    float16.apply(source, tmp_path, {"scope": "compute"}, context(made, tmp_path))

    assert (tmp_path / "model.onnx").is_file()


def test_smoothing_that_would_move_nothing_is_refused(tmp_path: Path) -> None:
    """Channels whose weights are zero keep their scale: static_int8 with smooth would be without."""
    made = model(("MatMul",), np.zeros((WIDTH, WIDTH), np.float32))
    source = models.write(made, tmp_path / "source.onnx")

    with pytest.raises(Unsupported, match="channels could be smoothed"):
        static_int8.apply(source, tmp_path, defaults("static_int8") | {"smooth": 0.8}, context(made, tmp_path))


def test_quantized_model_without_a_quantized_node_is_refused(tmp_path: Path) -> None:
    """What quantizers leave in float must not go by the name of int8."""
    made = model(("MatMul",))

    with pytest.raises(Unsupported, match="found nothing in the model that it could quantize"):
        _qdq.write(made, tmp_path, context(made, tmp_path))
    source = models.write(made, tmp_path / "source.onnx")
    static_int8.apply(source, tmp_path, defaults("static_int8"), context(made, tmp_path))
    _onnx.refuse_float(_onnx.load(tmp_path / "model.onnx"))
