"""The int8 audit by kernels, and OpenVINO's counters: on made-up counters, no runtime needed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autopilot.model import int8_audit_of_kernels
from autopilot.profile import Kernel
from autopilot.providers._openvino_kernels import KernelRun, costs_of, kernel_of, node_count, sources_of
from autopilot.search.audit import fake_int8


def info(name: str, kind: str, kernel: str, *, ran: bool = True, us: int = 10) -> Any:
    """A line of the counters."""
    status = "Status.EXECUTED" if ran else "Status.NOT_RUN"
    return SimpleNamespace(
        node_name=name, node_type=kind, exec_type=kernel, status=status, real_time=timedelta(microseconds=us)
    )


def node(name: str, kind: str, sources: str = "") -> Any:
    """A node of the runtime model."""
    told = {"layerType": kind} | ({"originalLayersNames": sources} if sources else {})
    return SimpleNamespace(
        get_friendly_name=lambda: name, get_type_name=lambda: "ExecutionNode", get_rt_info=lambda: told
    )


def quantized(folder: Path, *, dynamic: bool = False) -> Path:
    """Two products, ``first`` and ``second``, that claim int8; x (1, 4) -> y (1, 2)."""
    nodes, weights = [], []
    for i, (name, rows, columns) in enumerate((("first", 4, 8), ("second", 8, 2))):
        source, target = ("x", "h")[i], ("h", "y")[i]
        weights.append(numpy_helper.from_array(np.ones((rows, columns), np.int8), f"q{i}"))
        weights.append(numpy_helper.from_array(np.float32(0.1).reshape(()), f"s{i}"))
        if dynamic:
            nodes.append(helper.make_node("DynamicQuantizeLinear", [source], [f"a{i}", f"as{i}", f"az{i}"]))
            nodes.append(helper.make_node("MatMulInteger", [f"a{i}", f"q{i}", f"az{i}"], [f"m{i}"], name=name))
            nodes.append(helper.make_node("Cast", [f"m{i}"], [target], to=TensorProto.FLOAT))
        else:
            nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", f"s{i}"], [f"w{i}"]))
            nodes.append(helper.make_node("MatMul", [source, f"w{i}"], [target], name=name))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in (("x", 4), ("y", 2)))
    path = folder / "model.onnx"
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def kernels(*told: tuple[str, str, str]) -> list[Kernel]:
    """Kernels by source, kind and kernel name."""
    return [kernel_of(KernelRun.of(info(source, kind, kernel)), (source,)) for source, kind, kernel in told]


@pytest.mark.parametrize(
    ("kernel", "dtype", "integer"),
    [
        ("brgconv_avx512_I8", "uint8", True),
        ("brgemm_avx512_i8", "int8", True),
        ("brgconv_avx512_bf16", "bfloat16", False),
        ("gemm_mlas_f32", "float32", False),
        ("undef", "", False),
    ],
)
def test_type_of_a_kernel_is_the_end_of_its_name(kernel: str, dtype: str, integer: bool) -> None:
    """ "I8" is what OpenVINO writes for unsigned bytes."""
    run = KernelRun.of(info("c", "Convolution", kernel))

    assert run.dtype == dtype
    assert kernel_of(run, ()).integer is integer


def test_only_products_count_as_integer_kernels() -> None:
    """A pooling layer on bytes multiplies nothing."""
    assert not kernel_of(KernelRun.of(info("p", "MaxPool", "jit_avx512_I8")), ()).integer
    assert kernel_of(KernelRun.of(info("f", "FullyConnectedQuantizedLegacy", "brgemm_avx512_I8")), ()).integer


def test_audit_counts_products_in_integer_kernels(tmp_path: Path) -> None:
    """Half of the products, a third of the multiply-accumulates: 16 of 48."""
    ran = kernels(
        ("first", "FullyConnected", "gemm_f32"), ("y", "FullyConnected", "brgemm_I8"), ("r", "Relu", "jit_I8")
    )

    found = int8_audit_of_kernels(quantized(tmp_path), ran)

    assert (found.claimed, found.executed, found.total) == (2, 1, 2)
    assert found.mac_share == pytest.approx(16 / 48)
    assert not found.is_fake


def test_dynamic_products_that_run_in_float_are_fake_int8(tmp_path: Path) -> None:
    """OpenVINO multiplies them in float, from compressed weights or not."""
    ran = kernels(("first", "FullyConnectedCompressed", "brgemm_f32"), ("second", "MatMul", "brgemm_f32"))

    found = int8_audit_of_kernels(quantized(tmp_path, dynamic=True), ran)

    assert found.is_fake
    assert fake_int8(found, "openvino") == "only 0 of 2 nodes that should be int8 run in int8 on openvino."


def test_share_of_macs_is_unknown_where_a_product_is_in_no_kernel(tmp_path: Path) -> None:
    """No figure is made up."""
    ran = kernels(("first", "FullyConnected", "brgemm_I8"), ("fused_away", "FullyConnected", "brgemm_I8"))

    assert int8_audit_of_kernels(quantized(tmp_path), ran).mac_share is None


def test_stored_integers_keep_the_promise_of_weight_only_products(tmp_path: Path) -> None:
    """Integers are the weights of MatMulNBits, which is all that it claims; none of its arithmetic is int8."""
    path = tmp_path / "model.onnx"
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in (("x", 32), ("y", 4)))
    stored = [
        numpy_helper.from_array(np.zeros((4, 1, 16), np.uint8), "q"),
        numpy_helper.from_array(np.ones(4, np.float32), "s"),
    ]
    product = helper.make_node(
        "MatMulNBits", ["x", "q", "s"], ["y"], name="p", domain="com.microsoft", K=32, N=4, bits=4, block_size=32
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(helper.make_graph([product], "g", [x], [y], stored), opset_imports=opsets), path)

    found = int8_audit_of_kernels(path, kernels(("p", "FullyConnectedCompressed", "brgemm_f32")))

    assert (found.claimed, found.executed) == (1, 1)
    assert found.mac_share == 0.0


def test_sources_are_told_whole_and_without_what_openvino_added() -> None:
    """So that a node is found by its own name or by that of its output."""
    model = SimpleNamespace(
        get_ordered_ops=lambda: [
            node("x", "Input"),
            node("c/WithoutBiases", "Convolution", "c/WithoutBiases,relu_out"),
            node("y", "Output"),
        ]
    )

    assert sources_of(model)["c/WithoutBiases"] == ("c/WithoutBiases", "relu_out", "c")
    assert node_count(model) == 1


def test_costs_are_means_over_requests_and_leave_out_what_did_not_run() -> None:
    """A folded node costs nothing."""
    request = [info("a", "Convolution", "conv_f32", us=30), info("b", "Convolution", "conv_f32", us=10)]
    slower = [info("a", "Convolution", "conv_f32", us=50), info("c", "Relu", "jit_f32", ran=False)]

    rows = costs_of([[KernelRun.of(i) for i in request], [KernelRun.of(i) for i in slower]], "OpenVINO")

    assert [(r.operator, r.provider, r.dtype, r.count) for r in rows] == [("Convolution", "OpenVINO", "float32", 1.5)]
    assert rows[0].seconds == pytest.approx(45e-6)


def test_kernels_survive_json() -> None:
    """They travel from the scoring process to the search."""
    kernel = Kernel("MatMul", ("a", "b"), product=True, integer=False, stored_integer=True)

    assert Kernel.from_json(kernel.to_json()) == kernel
