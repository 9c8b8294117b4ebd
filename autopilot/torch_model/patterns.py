"""GELU and layer norms that a file spells out in many nodes, as the one torch layer that they are.

Where such a spelling begins (at its Erf, Tanh or Sqrt) the node that ends it is looked for and remembered; when the
conversion comes to that node, it becomes the layer. The nodes between are dropped where nothing else uses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.torch_model.builder import Builder
from autopilot.torch_model.layers import fill
from autopilot.torch_model.onnx_graph import Node

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch.fx import Node as FxNode

# Constants are written as float32.
_CLOSE = 1e-6


def look(b: Builder, node: Node) -> None:
    """Remember in ``b.patterns`` how the node that ends a spelling which begins at ``node`` is made."""
    found = _layer_norm(b, node) if node.op == "Sqrt" else _gelu(b, node)
    if found is not None:
        end, make = found
        b.patterns[end.outputs[0].name or ""] = make


def _gelu(b: Builder, node: Node) -> tuple[ir.Node, Callable[[], FxNode]] | None:
    """x / 2 (1 + erf(x / sqrt 2)), or with tanh(sqrt(2 / pi) (x + 0.044715 x^3)); factors in any order."""
    x = _erf_argument(b, node) if node.op == "Erf" else _tanh_argument(b, node)
    added = _only_user(node.raw, "Add")
    if x is None or added is None or not _is(b, _other(added, node.raw), 1.0):
        return None
    now, factor, seen = added, 1.0, False
    while (after := _only_user(now, "Mul")) is not None:
        other = _other(after, now)
        times = _scaled(b, other, x)
        if times is not None and not seen:
            factor, seen = factor * times, True
        elif (number := _number(b, other)) is not None:
            factor *= number
        else:
            return None
        now = after
        if seen and math.isclose(factor, 0.5, rel_tol=_CLOSE):
            return now, partial(_gelu_layer, b, x.name or "", "none" if node.op == "Erf" else "tanh")
    return None


def _gelu_layer(b: Builder, x: str, approximate: str) -> FxNode:
    from torch import nn

    layer = nn.GELU(approximate)
    return b.layer(layer, ("GELU", repr(layer)), "gelu", b.tensor(x))


def _erf_argument(b: Builder, node: Node) -> ir.Value | None:
    """x of erf(x / sqrt 2)."""
    given = _maker(node.raw.inputs[0], "Div", "Mul")
    if given is None:
        return None
    for x, other in _pairs(given):
        number = _number(b, other)
        if number and math.isclose(1 / number if given.op_type == "Div" else number, math.sqrt(0.5), rel_tol=_CLOSE):
            return x
    return None


def _tanh_argument(b: Builder, node: Node) -> ir.Value | None:
    """x of tanh(sqrt(2 / pi) (x + 0.044715 x^3))."""
    given = _maker(node.raw.inputs[0], "Mul")
    for total, other in _pairs(given) if given is not None else ():
        added = _maker(total, "Add")
        if added is None or not _is(b, other, math.sqrt(2 / math.pi)):
            continue
        for x, term in _pairs(added):
            scaled = _maker(term, "Mul")
            for cube, number in _pairs(scaled) if scaled is not None else ():
                if _is(b, number, 0.044715) and x is not None and _is_power(b, cube, x, 3):
                    return x
    return None


def _layer_norm(b: Builder, node: Node) -> tuple[ir.Node, Callable[[], FxNode]] | None:
    """(x - mean) / sqrt(mean of its square + epsilon), times a stored scale, plus a stored bias where one follows."""
    added = _maker(node.raw.inputs[0], "Add")
    divided = _only_user(node.raw, "Div")
    scaled = _only_user(divided, "Mul") if divided is not None else None
    if added is None or divided is None or scaled is None or divided.inputs[1] is not node.raw.outputs[0]:
        return None
    scale = _stored_row(b, _other(scaled, divided))
    away = divided.inputs[0]
    for mean, other in _pairs(added):
        epsilon = _number(b, other)
        variance = _maker(mean, "ReduceMean")
        if epsilon is None or variance is None or scale is None or away is None:
            continue
        x = _less_mean(b, away)
        if x is None or not _over_last(b, variance) or not _is_power(b, variance.inputs[0], away, 2):
            continue
        shifted = _only_user(scaled, "Add")
        bias = _stored_row(b, _other(shifted, scaled)) if shifted is not None else None
        if bias is not None and bias[1].size != scale[1].size:
            bias = None
        end = shifted if bias is not None and shifted is not None else scaled
        return end, partial(_layer_norm_layer, b, x.name or "", scale, bias, epsilon)
    return None


def _layer_norm_layer(
    b: Builder, x: str, scale: tuple[str, Any], bias: tuple[str, Any] | None, epsilon: float
) -> FxNode:
    from torch import nn

    layer = nn.LayerNorm(scale[1].size, epsilon, bias=bias is not None)
    fill(layer.weight, scale[1].reshape(-1))
    if bias is not None:
        fill(layer.bias, bias[1].reshape(-1))
    key = ("LayerNorm", scale[0], bias[0] if bias is not None else "", epsilon)
    stem, dot, last = scale[0].rpartition(".")
    return b.layer(layer, key, stem if dot and last == "weight" else "layernorm", b.tensor(x))


def _less_mean(b: Builder, value: ir.Value) -> ir.Value | None:
    """x of x - mean(x) over the last dimension."""
    away = _maker(value, "Sub")
    mean = _maker(away.inputs[1], "ReduceMean") if away is not None else None
    if away is None or mean is None or mean.inputs[0] is not away.inputs[0] or not _over_last(b, mean):
        return None
    return away.inputs[0]


def _over_last(b: Builder, node: ir.Node) -> bool:
    """Whether a ReduceMean runs over the last dimension and keeps it."""
    read = Node(node, b.onnx.opset, b.onnx.constants)
    shape = read.shape(0)
    given = read.attribute("axes")
    axes = given if given is not None else read.constant(1)
    if axes is None or not read.attribute("keepdims", 1):
        return False
    last = {-1, len(shape) - 1} if shape is not None else {-1}
    return [int(a) in last for a in np.asarray(axes).reshape(-1)] == [True]


# ---- reading the graph -----------------------------------------------------------------------------


def _maker(value: ir.Value | None, *ops: str) -> ir.Node | None:
    made = value.producer() if value is not None else None
    return made if made is not None and made.op_type in ops and not made.domain else None


def _only_user(node: ir.Node, op: str) -> ir.Node | None:
    """The one node that uses what ``node`` makes, if it is an ``op``."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    return uses[0].node if uses[0].node.op_type == op and not uses[0].node.domain else None


def _other(node: ir.Node, one: ir.Node) -> ir.Value | None:
    """The input of a binary ``node`` that ``one`` doesn't make."""
    return next((v for v in node.inputs if v is not one.outputs[0]), None)


def _pairs(node: ir.Node) -> list[tuple[ir.Value | None, ir.Value | None]]:
    """The two inputs of a binary node, both ways where their order is free."""
    a, c = node.inputs[:2]
    return [(a, c)] if node.op_type in ("Div", "Sub", "Pow") else [(a, c), (c, a)]


def _number(b: Builder, value: ir.Value | None) -> float | None:
    """A stored single float."""
    stored = b.onnx.constants.get(value.name or "") if value is not None else None
    return (
        float(stored.reshape(-1)[0]) if stored is not None and stored.size == 1 and stored.dtype.kind == "f" else None
    )


def _is(b: Builder, value: ir.Value | None, wanted: float) -> bool:
    number = _number(b, value)
    return number is not None and math.isclose(number, wanted, rel_tol=_CLOSE)


def _scaled(b: Builder, value: ir.Value | None, x: ir.Value) -> float | None:
    """What ``x`` is multiplied by to give ``value``; None where it isn't."""
    if value is x:
        return 1.0
    given = _maker(value, "Mul")
    return next((_number(b, n) for v, n in _pairs(given) if v is x), None) if given is not None else None


def _is_power(b: Builder, value: ir.Value | None, x: ir.Value, exponent: int) -> bool:
    """Whether ``value`` is x^2 or x^3, by Pow or by products; another difference of the same two counts as x."""
    given = _maker(value, "Pow", "Mul")
    if given is None:
        return False
    if given.op_type == "Pow":
        power = b.onnx.constants.get(given.inputs[1].name or "") if given.inputs[1] is not None else None
        right = power is not None and power.size == 1 and float(power.reshape(-1)[0]) == exponent
        return right and _alike(given.inputs[0], x)
    if exponent == 2:
        return all(_alike(v, x) for v in given.inputs)
    return any(_alike(v, x) and _is_power(b, rest, x, 2) for v, rest in _pairs(given))


def _alike(value: ir.Value | None, x: ir.Value) -> bool:
    if value is x:
        return True
    one, other = _maker(value, "Sub"), _maker(x, "Sub")
    return one is not None and other is not None and list(one.inputs) == list(other.inputs)


def _stored_row(b: Builder, value: ir.Value | None) -> tuple[str, Any] | None:
    """Name and value of a stored row that is broadcast along the last dimension."""
    name = value.name or "" if value is not None else ""
    stored = b.onnx.constants.get(name)
    if stored is None or stored.ndim == 0 or stored.size < 2 or stored.shape[-1] != stored.size:
        return None
    return name, stored
