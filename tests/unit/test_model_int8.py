"""The int8 audit: what an artifact claims against what the runtime's optimized graph executes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

from autopilot.model import int8_audit
from tests import models
from tests.models import Weights, node, value


def float_product(name: str = "mm") -> ModelProto:
    """One MatMul in float."""
    w = Weights()
    nodes = [node("MatMul", ["x", w.normal("w", 8, 4)], ["y"], name=name)]
    return models.model_of(nodes, [value("x", models.F, ["N", 8])], [value("y", models.F, ["N", 4])], w)


def fused_product() -> ModelProto:
    """What ONNX Runtime makes of the QDQ perceptron: one QLinearMatMul."""
    model = models.qdq()
    inputs = ["xq", "s", "zx", "wq", "s", "zw", "s", "zx"]
    kept = [n for n in model.graph.node if n.op_type != "MatMul" and n.output[0] not in ("xd", "wd", "yq")]
    del model.graph.node[:]
    model.graph.node.extend([kept[0], helper.make_node("QLinearMatMul", inputs, ["yq"], name="mm_quant"), *kept[1:]])
    return model


def test_fused_product_counts_as_executed(tmp_path: Path) -> None:
    """A DequantizeLinear in front of a MatMul claims int8; a QLinearMatMul in its place keeps the promise."""
    artifact = models.write(models.qdq(), tmp_path / "a.onnx")
    optimized = models.write(fused_product(), tmp_path / "o.onnx")

    audit = int8_audit(artifact, optimized)

    assert (audit.claimed, audit.executed, audit.total) == (1, 1, 1)
    assert audit.mac_share == 1.0
    assert not audit.is_fake


def test_unfused_product_is_fake(tmp_path: Path) -> None:
    """Where the optimized graph still multiplies in float, nothing ran in int8."""
    artifact = models.write(models.qdq(), tmp_path / "a.onnx")

    audit = int8_audit(artifact, artifact)

    assert (audit.claimed, audit.executed) == (1, 0)
    assert audit.mac_share == 0.0
    assert audit.is_fake


def test_folded_weight_is_fake(tmp_path: Path) -> None:
    """A runtime that dequantizes at load leaves a plain float MatMul: that is no int8 either."""
    artifact = models.write(models.qdq(), tmp_path / "a.onnx")
    optimized = models.write(float_product(), tmp_path / "o.onnx")

    audit = int8_audit(artifact, optimized)

    assert audit.is_fake
    assert audit.mac_share == 0.0


def test_float_model_claims_nothing(tmp_path: Path) -> None:
    """Without a claim there is no fake."""
    path = models.write(float_product(), tmp_path / "a.onnx")

    audit = int8_audit(path, path)

    assert (audit.claimed, audit.executed, audit.total) == (0, 0, 1)
    assert not audit.is_fake


def test_claim_reaches_through_a_transpose(tmp_path: Path) -> None:
    """Exporters put a Transpose between the dequantized weight and its product."""
    model = models.qdq()
    product = next(n for n in model.graph.node if n.op_type == "MatMul")
    position = list(model.graph.node).index(product)
    product.input[1] = "wt"
    model.graph.node.insert(position, node("Transpose", ["wd"], ["wt"], perm=[0, 1]))
    path = models.write(model, tmp_path / "a.onnx")

    audit = int8_audit(path, path)

    assert audit.claimed == 1


def test_mac_share_weighs_nodes_by_their_cost(tmp_path: Path) -> None:
    """A cnn whose small head alone is int8 has a share far below one third."""
    w = Weights()
    cnn = models.cnn()
    head = next(n for n in cnn.graph.node if n.name == "head")
    for name, array in (("hs", 0.1), ("hz", 0)):
        w.put(name, np.array(array, "float32" if name == "hs" else "int8"))
    w.put("hq", w.rng.integers(-9, 9, (16, 4)).astype("int8"))
    cnn.graph.initializer.extend(w.tensors)
    position = list(cnn.graph.node).index(head)
    head.input[1] = "hd"
    cnn.graph.node.insert(position, node("DequantizeLinear", ["hq", "hs", "hz"], ["hd"]))
    artifact = models.write(cnn, tmp_path / "a.onnx")
    optimized = models.cnn()
    new = next(n for n in optimized.graph.node if n.name == "head")
    new.name, new.op_type, new.domain = "head_quant", "QGemm", "com.microsoft"

    audit = int8_audit(artifact, models.write(optimized, tmp_path / "o.onnx"))

    # Per sample: conv1 64*8*9, conv2 16*16*72, head 16*4.
    assert audit.mac_share == pytest.approx(64 / (64 * 8 * 9 + 16 * 16 * 72 + 64))


def test_mac_share_is_unknown_when_a_shape_is(tmp_path: Path) -> None:
    """With a symbolic sequence length attention and projections can't be weighed against each other."""
    path = models.write(models.encoder(), tmp_path / "e.onnx")

    assert int8_audit(path, path).mac_share is None


def test_products_in_subgraphs_are_counted(tmp_path: Path) -> None:
    """Those inside If branches belong to the model; their share of the work isn't known."""
    path = models.write(models.detector(), tmp_path / "d.onnx")

    audit = int8_audit(path, path)

    # Five MatMuls, one Gemm, one GRU.
    assert audit.total == 7
    assert audit.mac_share is None
