"""ONNX nodes without weights, as calls of functions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.torch_model import host, operators
from autopilot.torch_model.builder import Builder
from autopilot.torch_model.onnx_graph import CannotConvert, Node

if TYPE_CHECKING:
    from torch.fx import Node as FxNode

Handler = Callable[[Builder, Node], Any]

# torch's names for ONNX's element types, by their number.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 16: "bfloat16",
}  # fmt: skip


def dtype_name(number: int) -> str:
    """torch's name of an ONNX element type.

    Raises:
        CannotConvert: torch hasn't it.
    """
    if number not in DTYPES:
        raise CannotConvert(f"it makes values of ONNX's type {number}, which torch hasn't")
    return DTYPES[number]


# ---- elementwise -------------------------------------------------------------------------------------


def _method(name: str) -> Handler:
    """A handler for an operator that is a tensor's method."""
    return lambda b, n: b.method(name, *(b.tensor(i) for i in n.inputs))


def _function(function: Callable[..., Any]) -> Handler:
    """A handler for an operator that is a function of its inputs."""
    return lambda b, n: b.call(function, *(b.tensor(i) for i in n.inputs))


def _fold(b: Builder, node: Node) -> FxNode:
    parts = [b.tensor(i) for i in node.inputs]
    return parts[0] if len(parts) == 1 else b.call(operators.fold, node.op, *parts)


def hard_sigmoid(b: Builder, node: Node) -> FxNode:
    """HardSigmoid with any slope; torch's own has one."""
    scaled = b.call(operator.mul, b.tensor(node.inputs[0]), node.attribute("alpha", 0.2))
    return b.call(operators.clip, b.call(operator.add, scaled, node.attribute("beta", 0.5)), 0.0, 1.0)


def cast(b: Builder, node: Node) -> FxNode:
    """Cast."""
    return b.call(operators.cast, b.tensor(node.inputs[0]), dtype_name(node.attribute("to")))


def mod(b: Builder, node: Node) -> FxNode:
    """Mod."""
    return b.call(operators.mod, *(b.tensor(i) for i in node.inputs), bool(node.attribute("fmod", 0)))


# ---- shapes ------------------------------------------------------------------------------------------


def reshape(b: Builder, node: Node) -> FxNode:
    """Reshape; where it only joins what follows the first dimension it is a flatten, whatever their number later."""
    x, shape = b.tensor(node.inputs[0]), b.shape_like(node, 1)
    if isinstance(shape, list) and len(shape) == 2 and _joins_rest(node.shape(0), shape):
        return b.call(operators.flatten, x, 1)
    return b.call(operators.reshape, x, shape, bool(node.attribute("allowzero", 0)))


def _joins_rest(given: tuple[int | None, ...] | None, wanted: list[int]) -> bool:
    """Whether ``wanted`` = [samples, everything else], so that a pruned model keeps it true."""
    if given is None or len(given) < 2:
        return False
    rest = given[1:]
    count = prod(d for d in rest if d is not None) if None not in rest else None
    whole = wanted[1] == -1 or (count is not None and wanted[1] == count)
    first = wanted[0] in (0, given[0]) or (wanted[0] == -1 and count is not None and wanted[1] == count)
    return whole and first and wanted != [-1, -1]


def squeeze(b: Builder, node: Node) -> FxNode:
    """Squeeze."""
    return b.call(operators.squeeze, b.tensor(node.inputs[0]), node.numbers(1, "axes"))


def unsqueeze(b: Builder, node: Node) -> FxNode:
    """Unsqueeze."""
    return b.call(operators.unsqueeze, b.tensor(node.inputs[0]), node.numbers(1, "axes"))


def transpose(b: Builder, node: Node) -> FxNode:
    """Transpose; without perm all dimensions in reverse."""
    perm = node.attribute("perm") or list(reversed(range(node.rank(0))))
    return b.method("permute", b.tensor(node.inputs[0]), perm)


def flatten(b: Builder, node: Node) -> FxNode:
    """Flatten."""
    axis = node.attribute("axis", 1)
    return b.call(operators.flatten, b.tensor(node.inputs[0]), axis if axis >= 0 else axis + node.rank(0))


def concat(b: Builder, node: Node) -> FxNode:
    """Concat."""
    return b.call(operators.concat, node.attribute("axis"), *(b.tensor(i) for i in node.inputs))


def split(b: Builder, node: Node) -> list[FxNode]:
    """Split: one value an output."""
    parts = node.numbers(1, "split") or node.attribute("num_outputs") or len(node.outputs)
    whole = b.call(operators.split, b.tensor(node.inputs[0]), parts, node.attribute("axis", 0))
    return [b.call(operator.getitem, whole, i) for i in range(len(node.outputs))]


def take_slice(b: Builder, node: Node) -> FxNode:
    """Slice, its ends constant or computed from shapes."""
    x = b.tensor(node.inputs[0])
    if node.attribute("starts") is not None:
        return b.call(
            operators.take_slice, x, node.attribute("starts"), node.attribute("ends"), node.attribute("axes"), None
        )
    starts, ends = b.shape_like(node, 1), b.shape_like(node, 2)
    axes = node.numbers(3, "axes") if node.has(3) else None
    return b.call(operators.take_slice, x, starts, ends, axes, node.numbers(4, "steps") if node.has(4) else None)


def gather(b: Builder, node: Node) -> FxNode:
    """Gather; of rows of a stored matrix nn.Embedding, by one stored index a select."""
    from torch import nn

    from autopilot.torch_model.builder import layer_name
    from autopilot.torch_model.layers import fill

    axis, table, index = node.attribute("axis", 0), node.constant(0), node.constant(1)
    if table is not None and table.ndim == 2 and axis == 0 and table.dtype.kind == "f" and index is None:
        layer = nn.Embedding(*table.shape)
        fill(layer.weight, table)
        name = node.inputs[0].removesuffix(".weight") if node.inputs[0].endswith(".weight") else layer_name(node)
        return b.layer(layer, ("Embedding", node.inputs[0]), name, b.tensor(node.inputs[1]))
    x = b.tensor(node.inputs[0])
    if index is not None and index.ndim == 0:
        return b.call(operators.gather, x, int(index), axis)
    return b.call(operators.gather, x, b.tensor(node.inputs[1]), axis)


def gather_elements(b: Builder, node: Node) -> FxNode:
    """GatherElements."""
    return b.call(operators.gather_elements, *(b.tensor(i) for i in node.inputs), node.attribute("axis", 0))


def expand(b: Builder, node: Node) -> FxNode:
    """Expand."""
    return b.call(operators.expand, b.tensor(node.inputs[0]), b.shape_like(node, 1))


def tile(b: Builder, node: Node) -> FxNode:
    """Tile."""
    return b.call(operators.tile, b.tensor(node.inputs[0]), b.shape_like(node, 1))


def pad(b: Builder, node: Node) -> FxNode:
    """Pad by constant amounts."""
    mode, value = node.attribute("mode", "constant"), node.constant(2)
    amount = float(value) if value is not None and value.size == 1 else node.attribute("value", 0.0)
    if node.has(2) and value is None:
        raise CannotConvert("the value it pads with is computed while running")
    axes = node.numbers(3, "axes") if node.has(3) else None
    return b.call(operators.pad, b.tensor(node.inputs[0]), node.numbers(1, "pads"), mode, amount, axes)


def constant_of_shape(b: Builder, node: Node) -> FxNode:
    """ConstantOfShape; without a value zeros."""
    given = node.attribute("value")
    value = np.zeros(1, np.float32) if given is None else given.numpy().reshape(-1)
    return b.call(operators.full, b.shape_like(node, 0), value[0].item(), str(value.dtype))


def arange(b: Builder, node: Node) -> FxNode:
    """Range between whole numbers or sizes."""
    return b.call(operators.arange, *(b.shape_like(node, i) for i in range(3)))


# ---- sums over dimensions ------------------------------------------------------------------------------


def reduce(b: Builder, node: Node) -> FxNode:
    """ReduceMean and its like."""
    axes = node.numbers(1, "axes")
    if not axes:
        axes = [] if node.attribute("noop_with_empty_axes", 0) else None
    return b.call(operators.reduce, b.tensor(node.inputs[0]), node.op, axes, bool(node.attribute("keepdims", 1)))


def arg_extreme(b: Builder, node: Node) -> FxNode:
    """ArgMax and ArgMin, the first of equal ones."""
    if node.attribute("select_last_index", 0):
        raise CannotConvert("it asks for the last of equal values")
    axis, keep = node.attribute("axis", 0), bool(node.attribute("keepdims", 1))
    return b.call(operators.arg, b.tensor(node.inputs[0]), node.op == "ArgMax", axis, keep)


def cumsum(b: Builder, node: Node) -> FxNode:
    """CumSum along a constant axis."""
    axis = node.numbers(1, "axis")
    if axis is None or node.attribute("exclusive", 0) or node.attribute("reverse", 0):
        raise CannotConvert("it is exclusive or reverse")
    return b.call(operators.cumsum, b.tensor(node.inputs[0]), axis[0])


# ---- the rest ------------------------------------------------------------------------------------------


def trilu(b: Builder, node: Node) -> FxNode:
    """Trilu."""
    k = node.numbers(1, "k") if node.has(1) else None
    return b.call(operators.trilu, b.tensor(node.inputs[0]), bool(node.attribute("upper", 1)), int(k[0]) if k else 0)


def einsum(b: Builder, node: Node) -> FxNode:
    """Einsum."""
    return b.call(operators.einsum, node.attribute("equation"), *(b.tensor(i) for i in node.inputs))


def depth_to_space(b: Builder, node: Node) -> FxNode:
    """DepthToSpace."""
    columns = node.attribute("mode", "DCR") == "CRD"
    return b.call(operators.depth_to_space, b.tensor(node.inputs[0]), node.attribute("blocksize"), columns)


def space_to_depth(b: Builder, node: Node) -> FxNode:
    """SpaceToDepth."""
    return b.call(operators.space_to_depth, b.tensor(node.inputs[0]), node.attribute("blocksize"))


def resize(b: Builder, node: Node) -> FxNode:
    """Resize of images in the ways that torch has too."""
    mode, how = node.attribute("mode", "nearest"), node.attribute("coordinate_transformation_mode", "half_pixel")
    rank = node.rank(0) - 2
    sizes, scales = node.constant(3), node.constant(2)
    if (sizes is None or not sizes.size) and (scales is None or not scales.size):
        raise CannotConvert("its sizes are computed while running")
    if node.attribute("axes") or node.attribute("antialias", 0):
        raise CannotConvert("axes and antialiasing are not known")
    nearest = mode == "nearest" and node.attribute("nearest_mode", "round_prefer_floor")
    whole = scales is not None and all(float(s).is_integer() for s in scales.reshape(-1))
    # Enlarging by whole numbers, all ways of finding the nearest neighbour but those that round up agree.
    same = how == "asymmetric" and nearest == "floor"
    agree = whole and how in ("half_pixel", "pytorch_half_pixel") and nearest in ("round_prefer_floor", "floor")
    if mode == "nearest":
        if not (same or (agree and nearest == "round_prefer_floor")) or rank not in (1, 2, 3):
            raise CannotConvert(f"nearest neighbours by {how}, {nearest}, are not torch's")
        torch_mode = "nearest"
    else:
        if how not in ("half_pixel", "pytorch_half_pixel", "align_corners") or rank not in (1, 2, 3):
            raise CannotConvert(f"{mode} with {how} is not torch's")
        torch_mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank] if mode == "linear" else "bicubic"
    given = [int(s) for s in sizes[2:]] if sizes is not None and sizes.size else None
    factors = [float(s) for s in scales[2:]] if given is None and scales is not None else None
    return b.call(operators.resize, b.tensor(node.inputs[0]), given, factors, torch_mode, how == "align_corners")


def identity(b: Builder, node: Node) -> FxNode:
    """Identity, and Dropout outside of training."""
    return b.tensor(node.inputs[0])


FUNCTIONS: dict[str, Handler] = {
    "Abs": _method("abs"), "Add": _function(operator.add), "And": _method("logical_and"), "ArgMax": arg_extreme,
    "ArgMin": arg_extreme, "Cast": cast, "Ceil": _method("ceil"), "Concat": concat,
    "ConstantOfShape": constant_of_shape, "Cos": _method("cos"), "CumSum": cumsum, "DepthToSpace": depth_to_space,
    "Div": _function(operators.div), "Dropout": identity, "Einsum": einsum, "Equal": _method("eq"),
    "Erf": _method("erf"), "Exp": _method("exp"), "Expand": expand, "Flatten": flatten, "Floor": _method("floor"),
    "Gather": gather, "GatherElements": gather_elements, "Greater": _method("gt"), "GreaterOrEqual": _method("ge"),
    "HardSigmoid": hard_sigmoid, "Identity": identity, "IsNaN": _method("isnan"), "Less": _method("lt"),
    "LessOrEqual": _method("le"), "Log": _method("log"), "Max": _fold, "Mean": _fold, "Min": _fold, "Mod": mod,
    "Mul": _function(operator.mul), "Neg": _method("neg"), "Not": _method("logical_not"), "Or": _method("logical_or"),
    "Pad": pad, "Pow": _function(operator.pow), "Range": arange, "Reciprocal": _method("reciprocal"),
    "ReduceL1": reduce, "ReduceL2": reduce, "ReduceLogSum": reduce, "ReduceLogSumExp": reduce, "ReduceMax": reduce,
    "ReduceMean": reduce, "ReduceMin": reduce, "ReduceProd": reduce, "ReduceSum": reduce, "ReduceSumSquare": reduce,
    "Reshape": reshape, "Resize": resize, "Round": _method("round"), "Shape": lambda b, n: b.call(
        host.sizes, b.tensor(n.inputs[0]), n.attribute("start", 0), n.attribute("end")
    ), "Sign": _method("sign"), "Sin": _method("sin"), "Size": _function(host.size), "Slice": take_slice,
    "SpaceToDepth": space_to_depth, "Split": split, "Sqrt": _method("sqrt"), "Squeeze": squeeze,
    "Sub": _function(operator.sub), "Sum": _fold, "Tile": tile, "Transpose": transpose, "Trilu": trilu,
    "Unsqueeze": unsqueeze, "Where": _function(operators.where), "Xor": _method("logical_xor"),
}  # fmt: skip
