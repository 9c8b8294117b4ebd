"""ONNX nodes that work on shapes, as arithmetic on numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopilot.torch_model import host
from autopilot.torch_model.builder import Builder
from autopilot.torch_model.onnx_graph import Node

if TYPE_CHECKING:
    from torch.fx import Node as FxNode

_WHOLE = frozenset({6, 7})  # int32, int64


def on_host(b: Builder, node: Node) -> FxNode | None:
    """``node`` as arithmetic on shapes; None where it isn't one, or works on tensors too.

    The inputs are shapes or whole constants, and at least one is a shape.
    """
    used = [i for i in node.inputs if i]
    shapes = [i for i in used if i in b.host_values]
    constants = [b.onnx.constants[i] for i in used if i in b.onnx.constants]
    if not shapes or len(shapes) + len(constants) != len(used):
        return None
    if any(c.dtype.kind not in "iub" or c.ndim > 1 for c in constants):
        return None
    return _call(b, node, [b.shape_like(node, i) for i in range(len(node.inputs)) if node.has(i)])


def _call(b: Builder, node: Node, values: list[Any]) -> FxNode | None:
    op = node.op
    if op in host.BINARY and len(values) == 2:
        return b.call(host.binary, op, *values)
    if op == "Gather":
        return b.call(host.gather, *values)
    if op == "Concat":
        return b.call(host.concat, *values)
    if op == "Where":
        return b.call(host.where, *values)
    if op == "Unsqueeze":
        return b.call(host.unsqueeze, values[0])
    if op == "Squeeze":
        return b.call(host.squeeze, values[0])
    if op == "ReduceProd":
        return b.call(host.product, values[0])
    if op == "Identity" or (op == "Cast" and node.attribute("to") in _WHOLE):
        return b.call(host.same, values[0])
    if op == "Reshape" and len(values[1]) < 2:
        return b.call(host.unsqueeze if values[1] else host.squeeze, values[0])
    if op == "Slice" and node.opset >= 10:
        step = node.numbers(4, "steps") if node.has(4) else None
        start, end = (v[0] if isinstance(v, list) else b.call(host.squeeze, v) for v in values[1:3])
        return b.call(host.take, values[0], start, end, step[0] if step else 1)
    return None
