"""What single techniques do beyond the contract that all of them share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from autopilot.contracts import BuildContext
from autopilot.domain import Scalar
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.model import inspect
from autopilot.model.graph import nodes, opset
from autopilot.techniques import bfloat16, dynamic_int8, float16, fuse, weight_only
from tests import models

DYNAMIC: dict[str, Scalar] = {"op_types": "matmul", "weight_type": "int8", "per_channel": True, "reduce_range": False}
WEIGHTS: dict[str, Scalar] = {
    "bits": 4, "block_size": 32, "symmetric": True, "accuracy_level": 4, "op_types": "matmul_gather",
}  # fmt: skip


def kinds(path: Path) -> Counter[str]:
    """Operators of a file by name."""
    return Counter(n.op_type for n in nodes(onnx.load(path)))


def source(tmp_path: Path, model: ModelProto) -> tuple[Path, Path, BuildContext]:
    """The model as a file, an empty folder, and samples that fit."""
    target = tmp_path / "built"
    target.mkdir()
    use = BuildContext(models.split_for(model, 16), tmp_path, 1)  # type: ignore[arg-type]
    return models.write(model, tmp_path / "model.onnx"), target, use


def test_ort_fusions_find_attention(tmp_path: Path) -> None:
    """Two MatMuls, a scale, a mask and a Softmax become one MultiHeadAttention; LayerNorm takes the residual."""
    path, target, use = source(tmp_path, models.encoder(layers=2))

    fuse.apply(path, target, {"method": "ort_fusions"}, use)

    found = kinds(target / "model.onnx")
    assert found["MultiHeadAttention"] == 2
    assert found["SkipLayerNormalization"] == 4
    assert found["Softmax"] == 0


@pytest.mark.parametrize("method", ["ort_fusions", "ort_basic", "transformers", "onnxslim"])
def test_nothing_to_fuse_is_unsupported(tmp_path: Path, method: str) -> None:
    """A model that comes out as it went in isn't measured a second time."""
    path, target, use = source(tmp_path, models.cnn())

    with pytest.raises(Unsupported, match="found nothing to fuse"):
        fuse.apply(path, target, {"method": method}, use)


@pytest.mark.parametrize("method", ["ort_fusions", "ort_basic", "ort_extended", "transformers", "onnxslim"])
def test_unused_input_stays_an_input(tmp_path: Path, method: str) -> None:
    """Callers send it: a tool that drops an unused input would break them."""
    path, target, use = source(tmp_path, models.half_weights())

    fuse.apply(path, target, {"method": method}, use)

    assert [i.name for i in inspect(target / "model.onnx").inputs] == ["x", "unused"]


def test_wrong_fusion_is_caught_by_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewrite that is shorter but answers differently is WRONG_NUMERICS."""

    def drop_relu(path: Path, scratch: Path) -> ModelProto:
        model = onnx.load(path)
        relu = next(n for n in model.graph.node if n.op_type == "Relu")
        reader = next(n for n in model.graph.node if relu.output[0] in n.input)
        reader.input[0] = relu.input[0]
        model.graph.node.remove(relu)
        return model

    monkeypatch.setitem(fuse._METHODS, "onnxslim", drop_relu)  # type: ignore[arg-type]
    path, target, use = source(tmp_path, models.wide())

    with pytest.raises(VariantFailed, match="differs from its source") as caught:
        fuse.apply(path, target, {"method": "onnxslim"}, use)

    assert caught.value.failure is Failure.WRONG_NUMERICS


def test_failing_tool_is_a_build_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rewriting library raises ends this candidate, with its name and reason."""

    def fail(path: Path, scratch: Path) -> ModelProto:
        raise IndexError("pattern 7")

    monkeypatch.setitem(fuse._METHODS, "onnxslim", fail)  # type: ignore[arg-type]
    path, target, use = source(tmp_path, models.wide())

    with pytest.raises(VariantFailed, match=r"onnxslim failed .*IndexError: pattern 7") as caught:
        fuse.apply(path, target, {"method": "onnxslim"}, use)

    assert caught.value.failure is Failure.BUILD_ERROR


def test_dynamic_int8_of_a_fused_model_quantizes_its_projections(tmp_path: Path) -> None:
    """Types behind a fused operator are unknown to ONNX's inference; the MatMuls there are quantized all the same."""
    path, target, use = source(tmp_path, models.encoder())
    fuse.apply(path, target, {"method": "ort_fusions"}, use)
    fused = (target / "model.onnx").rename(tmp_path / "fused.onnx")

    dynamic_int8.apply(fused, target, DYNAMIC, use)

    found = kinds(target / "model.onnx")
    assert found["MatMulInteger"] == 7
    assert found["MatMul"] == 0


@pytest.mark.parametrize(("op_types", "expected"), [("matmul", False), ("matmul_gather", True), ("all", False)])
def test_dynamic_int8_shrinks_embeddings_only_when_asked(tmp_path: Path, op_types: str, expected: bool) -> None:
    """matmul_gather stores the embedding table in 8 bits."""
    path, target, use = source(tmp_path, models.encoder())

    dynamic_int8.apply(path, target, {**DYNAMIC, "op_types": op_types}, use)

    table = [t for t in onnx.load(target / "model.onnx").graph.initializer if tuple(t.dims) == (40, 32)]
    assert (table[0].data_type in (TensorProto.INT8, TensorProto.UINT8)) is expected


def test_dynamic_int8_all_takes_convolutions_and_lstms(tmp_path: Path) -> None:
    """They are quantized on request only."""
    path, target, use = source(tmp_path, models.cnn())
    dynamic_int8.apply(path, target, {**DYNAMIC, "op_types": "all"}, use)
    assert kinds(target / "model.onnx")["ConvInteger"] == 2

    path = models.write(models.recurrent(), tmp_path / "model.onnx")
    dynamic_int8.apply(path, target, {**DYNAMIC, "op_types": "all"}, use)
    assert kinds(target / "model.onnx")["DynamicQuantizeLSTM"] == 1


def test_four_bit_embeddings_keep_the_opset(tmp_path: Path) -> None:
    """The quantizer renames the opset without converting nodes; the written model keeps the one its nodes are of."""
    path, target, use = source(tmp_path, models.encoder())

    weight_only.apply(path, target, WEIGHTS, use)

    found = kinds(target / "model.onnx")
    assert found["GatherBlockQuantized"] == 1
    assert found["MatMulNBits"] == 7
    assert opset(onnx.load(target / "model.onnx")) == 17


def test_weight_only_sizes_follow_the_bits(tmp_path: Path) -> None:
    """4 bits take about half of 8, which take about a quarter of float32."""
    path, target, use = source(tmp_path, models.wide(512, 256))
    sizes = []
    for bits in (8, 4):
        weight_only.apply(path, target, {**WEIGHTS, "bits": bits}, use)
        sizes.append((target / "model.onnx").stat().st_size)

    assert sizes[0] < 0.32 * path.stat().st_size
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("technique", [float16, bfloat16])
def test_stored_halves_are_half_the_file(tmp_path: Path, technique: object) -> None:
    """Weights are stored in 16 bits and come out of their Cast within the type's precision."""
    path, target, use = source(tmp_path, models.wide(512, 256))

    technique.apply(path, target, {"scope": "storage"}, use)  # type: ignore[attr-defined]

    assert (target / "model.onnx").stat().st_size < 0.55 * path.stat().st_size
    assert inspect(target / "model.onnx").inputs == inspect(path).inputs


def test_float16_leaves_values_beyond_its_range(tmp_path: Path) -> None:
    """A weight of 1e6 would become infinite: that tensor stays float32."""
    model = models.wide()
    tensor = next(t for t in model.graph.initializer if t.name == "w1")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0, 0] = 1e6
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), "w1"))
    path, target, use = source(tmp_path, model)

    float16.apply(path, target, {"scope": "storage"}, use)

    types = {t.name: t.data_type for t in onnx.load(target / "model.onnx").graph.initializer}
    assert types == {"w1": TensorProto.FLOAT, "w2_float16": TensorProto.FLOAT16}


def test_float16_computation_keeps_inputs_and_outputs(tmp_path: Path) -> None:
    """Everything inside is half precision, callers still send and get float32."""
    path, target, use = source(tmp_path, models.cnn())

    float16.apply(path, target, {"scope": "compute"}, use)

    built = onnx.load(target / "model.onnx")
    assert {t.data_type for t in built.graph.initializer} == {TensorProto.FLOAT16}
    assert inspect(target / "model.onnx").outputs == inspect(path).outputs
    onnx.checker.check_model(built)  # in topological order
