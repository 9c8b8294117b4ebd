"""ONNX nodes with weights, and pooling and activations, as torch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.torch_model import operators
from autopilot.torch_model.builder import Builder, layer_name, tensor_of
from autopilot.torch_model.onnx_graph import CannotConvert, Node

if TYPE_CHECKING:
    from torch.fx import Node as FxNode

Array = Any


def weight(node: Node, index: int, what: str) -> Array:
    """A constant input.

    Raises:
        CannotConvert: it is computed while running.
    """
    value = node.constant(index)
    if value is None:
        raise CannotConvert(f"its {what} is computed while running")
    return value


def fill(parameter: Any, value: Array) -> None:
    """Replace a layer's parameter or buffer by ``value``, in its own type."""
    parameter.data = tensor_of(value)


def padding(node: Node, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """All begins, then all ends, whatever way the node says it.

    Raises:
        CannotConvert: "same" padding of an input whose size is free.
    """
    rank = len(kernel)
    auto = node.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return node.attribute("pads") or [0] * 2 * rank
    if auto == "VALID":
        return [0] * 2 * rank
    shape = node.shape(0)
    begins, ends = [], []
    for i in range(rank):
        span = (kernel[i] - 1) * dilations[i] + 1
        size = shape[2 + i] if shape is not None else None
        if size is None and strides[i] != 1:
            raise CannotConvert(f"auto_pad {auto} with a stride needs a fixed input size")
        total = (
            max(span - strides[i], 0) if size is None or size % strides[i] == 0 else max(span - size % strides[i], 0)
        )
        small, large = total // 2, total - total // 2
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return begins + ends


def evened(b: Builder, x: FxNode, pads: list[int], value: float = 0.0) -> tuple[FxNode, list[int]]:
    """``x`` padded by itself where begins and ends differ, and the padding left to the layer."""
    rank = len(pads) // 2
    if any(p < 0 for p in pads) or pads[:rank] != pads[rank:]:
        return b.call(operators.pad, x, pads, "constant", value, list(range(2, 2 + rank))), [0] * rank
    return x, pads[:rank]


def conv(b: Builder, node: Node) -> FxNode:
    """Conv -> nn.Conv1d, 2d, 3d."""
    from torch import nn

    w = weight(node, 1, "weight")
    rank = w.ndim - 2
    if rank not in (1, 2, 3):
        raise CannotConvert(f"its weight has {w.ndim} dimensions")
    kernel = list(w.shape[2:])
    strides, dilations = node.attribute("strides") or [1] * rank, node.attribute("dilations") or [1] * rank
    group = node.attribute("group", 1)
    x, pads = evened(b, b.tensor(node.inputs[0]), padding(node, kernel, strides, dilations))
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    layer = kind(
        w.shape[1] * group, w.shape[0], tuple(kernel), tuple(strides), tuple(pads), tuple(dilations), group, node.has(2)
    )
    fill(layer.weight, w)
    if node.has(2):
        fill(layer.bias, weight(node, 2, "bias"))
    key = ("Conv", *node.inputs[1:], str(strides), str(pads), str(dilations), group)
    return b.layer(layer, key, layer_name(node), x)


def conv_transpose(b: Builder, node: Node) -> FxNode:
    """ConvTranspose -> nn.ConvTranspose1d, 2d, 3d."""
    from torch import nn

    w = weight(node, 1, "weight")
    rank = w.ndim - 2
    if rank not in (1, 2, 3) or node.attribute("output_shape") or node.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise CannotConvert("only explicit, symmetric padding of 1 to 3 dimensions is known")
    pads = node.attribute("pads") or [0] * 2 * rank
    if pads[:rank] != pads[rank:]:
        raise CannotConvert("its padding differs between begin and end")
    ones = [1] * rank
    strides, dilations = node.attribute("strides") or ones, node.attribute("dilations") or ones
    group, extra = node.attribute("group", 1), node.attribute("output_padding") or [0] * rank
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
    layer = kind(
        w.shape[0], w.shape[1] * group, tuple(w.shape[2:]), tuple(strides), tuple(pads[:rank]), tuple(extra),
        group, node.has(2), tuple(dilations),
    )  # fmt: skip
    fill(layer.weight, w)
    if node.has(2):
        fill(layer.bias, weight(node, 2, "bias"))
    return b.layer(layer, ("ConvTranspose", node.name), layer_name(node), b.tensor(node.inputs[0]))


def linear(b: Builder, node: Node, w: Array, bias: Array | None, key: tuple[Any, ...]) -> FxNode:
    """nn.Linear with ``w``, shape (out, in), and ``bias``, shape (out,); ``key`` ends with the bias's name."""
    from torch import nn

    layer = nn.Linear(w.shape[1], w.shape[0], bias is not None)
    fill(layer.weight, w)
    if bias is not None:
        fill(layer.bias, bias)
    return b.layer(layer, key, layer_name(node, str(key[-1])), b.tensor(node.inputs[0]))


def gemm(b: Builder, node: Node) -> FxNode:
    """Gemm -> nn.Linear, alpha and beta folded in; of two computed matrices a product."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    turned = (bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0)))
    w, c = node.constant(1), node.constant(2)
    bias = _row(c, w.shape[0 if turned[1] else 1]) if w is not None and c is not None else None
    if w is None or turned[0] or (node.has(2) and bias is None):
        third = b.tensor(node.inputs[2]) if node.has(2) else None
        a, other = b.tensor(node.inputs[0]), b.tensor(node.inputs[1])
        return b.call(operators.gemm, a, other, third, alpha, beta, turned)
    w = (w if turned[1] else w.T) * np.asarray(alpha, w.dtype)
    bias = bias * np.asarray(beta, bias.dtype) if bias is not None else None
    return linear(b, node, w, bias, ("Gemm", alpha, beta, turned, *node.inputs[1:]))


def matmul(b: Builder, node: Node) -> FxNode:
    """MatMul -> nn.Linear where the right side is a stored matrix, with the bias that the next Add brings."""
    w = node.constant(1)
    if w is None or w.ndim != 2:
        import torch

        return b.call(torch.matmul, b.tensor(node.inputs[0]), b.tensor(node.inputs[1]))
    add, name, bias = _bias_of(b, node, w.shape[1])
    out = linear(b, node, w.T, bias, ("MatMul", node.inputs[1], name))
    if add is not None:
        b.values[add.outputs[0].name] = out
    return out


def _bias_of(b: Builder, node: Node, width: int) -> tuple[Any, str, Array | None]:
    """The Add that alone uses a MatMul's result and adds a stored row to it, with the row's name and value."""
    value = node.raw.outputs[0]
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != "Add" or uses[0].node.domain:
        return None, "", None
    add = uses[0].node
    other = add.inputs[1 - uses[0].idx]
    name = (other.name or "") if other is not None else ""
    stored = b.onnx.constants.get(name)
    bias = _row(stored, width) if stored is not None and stored.size == width else None
    return (add, name, bias) if bias is not None else (None, "", None)


def _row(value: Array, width: int) -> Array | None:
    """``value`` as a row of ``width`` numbers where it broadcasts like one."""
    if value.size == 1 and value.ndim <= 1:
        return np.full(width, value.reshape(-1)[0], value.dtype)
    return value.reshape(-1) if value.shape[-1:] == (width,) and value.size == width else None


def batch_norm(b: Builder, node: Node) -> FxNode:
    """BatchNormalization -> nn.BatchNorm1d, 2d, 3d in evaluation mode."""
    from torch import nn

    if node.attribute("training_mode", 0):
        raise CannotConvert("it is in training mode")
    rank = node.rank(0)
    if rank not in (2, 3, 4, 5):
        raise CannotConvert(f"its input has {rank} dimensions")
    kind = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(rank, nn.BatchNorm1d)
    values = [weight(node, i, "statistics") for i in range(1, 5)]
    layer = kind(len(values[0]), node.attribute("epsilon", 1e-5), 1.0 - node.attribute("momentum", 0.9))
    for parameter, value in zip((layer.weight, layer.bias, layer.running_mean, layer.running_var), values, strict=True):
        fill(parameter, value)
    return b.layer(layer, ("BatchNorm", *node.inputs[1:]), layer_name(node), b.tensor(node.inputs[0]))


def layer_norm(b: Builder, node: Node) -> FxNode:
    """LayerNormalization -> nn.LayerNorm over the last dimensions."""
    from torch import nn

    scale = weight(node, 1, "scale")
    axis = node.attribute("axis", -1)
    count = -axis if axis < 0 else node.rank(0) - axis
    if scale.ndim != count or any(node.outputs[1:]):
        raise CannotConvert("its scale doesn't cover the normalized dimensions, or its statistics are used")
    layer = nn.LayerNorm(tuple(scale.shape), node.attribute("epsilon", 1e-5), bias=node.has(2))
    fill(layer.weight, scale)
    if node.has(2):
        fill(layer.bias, weight(node, 2, "bias").reshape(scale.shape))
    key = ("LayerNorm", *node.inputs[1:], node.attribute("epsilon", 1e-5))
    return b.layer(layer, key, layer_name(node), b.tensor(node.inputs[0]))


def instance_norm(b: Builder, node: Node) -> FxNode:
    """InstanceNormalization -> nn.GroupNorm with a group a channel, which takes any number of dimensions."""
    return _group_norm(b, node, len(weight(node, 1, "scale")))


def group_norm(b: Builder, node: Node) -> FxNode:
    """GroupNormalization of opset 21 -> nn.GroupNorm; before, its scale was one a group."""
    groups = node.attribute("num_groups")
    if node.opset < 21 and len(weight(node, 1, "scale")) == groups:
        raise CannotConvert("its scale is one a group (opset 18), which torch hasn't")
    return _group_norm(b, node, groups)


def _group_norm(b: Builder, node: Node, groups: int) -> FxNode:
    from torch import nn

    scale = weight(node, 1, "scale")
    layer = nn.GroupNorm(groups, len(scale), node.attribute("epsilon", 1e-5))
    fill(layer.weight, scale)
    fill(layer.bias, weight(node, 2, "bias"))
    return b.layer(layer, ("GroupNorm", groups, *node.inputs[1:]), layer_name(node), b.tensor(node.inputs[0]))


LAYERS: dict[str, Callable[[Builder, Node], Any]] = {
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "MatMul": matmul,
}
