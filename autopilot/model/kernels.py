"""What of a quantized file really runs in integer kernels, by the word of a runtime without an ONNX graph to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.model.files import parse
from autopilot.model.int8 import FLOAT_MATMUL, INTEGER_MATMUL, MATMUL, claims_int8, walk
from autopilot.model.macs import macs, shapes_of
from autopilot.profile import Int8Audit, Kernel

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def int8_audit_of_kernels(
    artifact: Path, kernels: Sequence[Kernel], inputs: Mapping[str, Sequence[int]] | None = None
) -> Int8Audit:
    """Count the products that ``artifact`` claims are integer and the kernels that really multiply integers.

    Weights stored as integers and multiplied in float (``stored_integer``) count as executed where that is all
    that the artifact claims (MatMulNBits): a dynamically quantized product that was turned into a float one
    doesn't. ``inputs`` as in ``int8_audit``; ``mac_share`` stays unknown where a product of the artifact is found
    among no kernel's sources.

    Raises:
        ModelError: the file is missing or no ONNX model.
    """
    model = parse(artifact)
    products = [(node, claims_int8(node, producers)) for node, producers in walk(model) if node.op_type in MATMUL]
    ran = [kernel for kernel in kernels if kernel.product]
    stores_only = all(node.op_type == "MatMulNBits" for node, claims in products if claims)
    executed = sum(kernel.integer or (kernel.stored_integer and stores_only) for kernel in ran)
    claimed = sum(claims for _, claims in products)
    return Int8Audit(claimed, executed, len(ran), _mac_share(model, [node for node, _ in products], ran, inputs))


def _mac_share(
    model: ModelProto, products: Sequence[NodeProto], ran: Sequence[Kernel], inputs: Mapping[str, Sequence[int]] | None
) -> float | None:
    """Share of the artifact's multiply-accumulates in integer kernels; None where it can't be told."""
    by_source = {source: kernel for kernel in ran for source in kernel.sources}
    shapes = shapes_of(model, inputs)
    whole = integer = 0
    for node in products:
        kernel = next((by_source[n] for n in (node.name, *node.output) if n and n in by_source), None)
        cost = macs(node, FLOAT_MATMUL.get(node.op_type) or INTEGER_MATMUL[node.op_type], shapes)
        if kernel is None or cost is None:
            return None
        whole += cost
        integer += cost if kernel.integer else 0
    return integer / whole if whole else None
