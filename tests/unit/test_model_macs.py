"""Multiply-accumulates from shapes, through the runtime's own operators."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto

from autopilot.model import int8_audit
from autopilot.model.int8 import FLOAT_MATMUL, INTEGER_MATMUL
from autopilot.model.macs import macs, shapes_of
from tests import models
from tests.models import F, Weights, node, value


def costs(model: ModelProto, inputs: dict[str, tuple[int, ...]] | None = None) -> dict[str, int | None]:
    """Multiply-accumulates of every product by the operator's name (of one name: together)."""
    shapes = shapes_of(model, inputs)
    out: dict[str, int | None] = {}
    for n in model.graph.node:
        where = (FLOAT_MATMUL | INTEGER_MATMUL).get(n.op_type)
        if where is not None:
            found = macs(n, where, shapes)
            out[n.op_type] = None if found is None else (out.get(n.op_type) or 0) + found
    return out


def attention(kind: str) -> ModelProto:
    """One attention over 6 tokens of width 8, then a product that needs its shape: x [N,6,8] -> y [N,6,4]."""
    w = Weights()
    if kind == "plain":
        nodes = [
            node("MatMul", ["x", w.normal("wq", 8, 8)], ["q"]),
            node("MatMul", ["x", w.normal("wk", 8, 8)], ["k"]),
            node("MatMul", ["x", w.normal("wv", 8, 8)], ["v"]),
            node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
            node("MatMul", ["q", "kt"], ["s"]),
            node("Softmax", ["s"], ["p"], axis=-1),
            node("MatMul", ["p", "v"], ["a"]),
        ]
    elif kind == "multi_head":
        nodes = [
            node("MatMul", ["x", w.normal("wq", 8, 8)], ["q"]),
            node("MatMul", ["x", w.normal("wk", 8, 8)], ["k"]),
            node("MatMul", ["x", w.normal("wv", 8, 8)], ["v"]),
            node("MultiHeadAttention", ["q", "k", "v"], ["a"], domain="com.microsoft", num_heads=1),
        ]
    else:
        weights = [w.normal("w", 8, 24), w.normal("b", 24)]
        nodes = [node("Attention", ["x", *weights], ["a"], domain="com.microsoft", num_heads=1)]
    scale, bias = w.put("scale", [1.0] * 8), w.put("bias", [0.0] * 8)
    nodes += [
        node("SkipLayerNormalization", ["a", "x", scale, bias], ["n", "", "", "sum"], domain="com.microsoft"),
        node("Add", ["n", "sum"], ["m"]),
        node("MatMul", ["m", w.normal("wo", 8, 4)], ["y"]),
    ]
    return models.model_of(nodes, [value("x", F, ["N", 6, 8])], [value("y", F, ["N", 6, 4])], w, ms=True)


@pytest.mark.parametrize("kind", ["plain", "multi_head", "fused"])
def test_fused_attention_costs_what_its_parts_cost(kind: str) -> None:
    """Fusing changes no arithmetic, so that shares stay comparable."""
    found = costs(attention(kind))

    assert None not in found.values()
    projections, core, head = 3 * 6 * 8 * 8, 2 * 6 * 6 * 8, 6 * 8 * 4
    assert sum(c for c in found.values() if c is not None) == projections + core + head


def test_block_wise_weights_give_their_depth() -> None:
    """MatMulNBits packs its weight: the depth is an attribute, and shapes go on behind it."""
    w = Weights()
    packed = [w.put("q", [[[0]]]), w.put("s", [0.0])]
    nodes = [
        node("MatMulNBits", ["x", *packed], ["h"], domain="com.microsoft", K=32, N=16, bits=8, block_size=32),
        node("MatMul", ["h", w.normal("w2", 16, 4)], ["y"]),
    ]
    model = models.model_of(nodes, [value("x", F, ["N", 32])], [value("y", F, ["N", 4])], w, ms=True)

    assert costs(model) == {"MatMulNBits": 32 * 16, "MatMul": 16 * 4}


@pytest.mark.parametrize(("level", "expected"), [(4, 512 / 576), (0, 0.0)])
def test_block_wise_product_is_int8_arithmetic_only_where_it_asks_for_it(
    tmp_path: Path, level: int, expected: float
) -> None:
    """Elsewhere the integers are unpacked and multiplied in float."""
    w = Weights()
    packed = [w.put("q", [[[0]]]), w.put("s", [0.0])]
    more = {"K": 32, "N": 16, "bits": 8, "block_size": 32, "accuracy_level": level}
    nodes = [
        node("MatMulNBits", ["x", *packed], ["h"], domain="com.microsoft", **more),
        node("MatMul", ["h", w.normal("w2", 16, 4)], ["y"], name="last"),
    ]
    model = models.model_of(nodes, [value("x", F, ["N", 32])], [value("y", F, ["N", 4])], w, ms=True)
    path = models.write(model, tmp_path / "m.onnx")

    audit = int8_audit(path, path)

    assert audit.mac_share == pytest.approx(expected)
    assert not audit.is_fake


def test_shapes_of_a_request_fix_free_dimensions(tmp_path: Path) -> None:
    """With a free sequence length the share is unknown; a request tells it."""
    path = models.write(models.encoder(), tmp_path / "e.onnx")

    assert int8_audit(path, path).mac_share is None
    assert int8_audit(path, path, {"input_ids": (1, 5), "attention_mask": (1, 5)}).mac_share == 0.0


def test_recurrent_layer_counts_every_step() -> None:
    """Input and state times the weights of four gates, as often as the sequence is long."""
    model = models.recurrent()

    assert costs(model)["LSTM"] is None
    assert costs(model, {"x": (7, 1, 6)})["LSTM"] == 7 * (32 * 6 + 32 * 8)


def test_inputs_of_another_rank_are_left_as_declared() -> None:
    """A request's array that doesn't fit tells nothing."""
    model = models.cnn()

    assert costs(model, {"image": (3,), "other": (1,)}) == costs(model)
