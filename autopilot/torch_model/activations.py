"""ONNX activations and pooling as torch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autopilot.torch_model import operators
from autopilot.torch_model.builder import Builder
from autopilot.torch_model.layers import evened, fill, padding, weight
from autopilot.torch_model.onnx_graph import CannotConvert, Node

if TYPE_CHECKING:
    from torch.fx import Node as FxNode

Handler = Callable[[Builder, Node], Any]


def _activation(kind: str, make: Callable[[Any, Node], Any]) -> Handler:
    """A handler that calls the layer that ``make(torch.nn, node)`` gives; equal ones are one layer."""

    def handle(b: Builder, node: Node) -> FxNode:
        from torch import nn

        module = make(nn, node)
        return b.layer(module, (kind, repr(module)), kind.lower(), b.tensor(node.inputs[0]))

    return handle


def _softmax(log: bool) -> Handler:
    def handle(b: Builder, node: Node) -> FxNode:
        from torch import nn

        axis = node.attribute("axis", 1 if node.opset < 13 else -1)
        x = b.tensor(node.inputs[0])
        if node.opset < 13 and axis != -1 and axis != node.rank(0) - 1:
            return b.call(operators.flat_softmax, x, axis, log)
        module = nn.LogSoftmax(axis) if log else nn.Softmax(axis)
        return b.layer(module, ("Softmax", log, axis), "softmax", x)

    return handle


def clip(b: Builder, node: Node) -> FxNode:
    """Clip; between 0 and 6 it is nn.ReLU6."""
    from torch import nn

    low, high = (_bound(node, 1, "min"), _bound(node, 2, "max"))
    x = b.tensor(node.inputs[0])
    if (low, high) == (0, 6):
        return b.layer(nn.ReLU6(), ("ReLU6",), "relu6", x)
    return b.call(operators.clip, x, low, high)


def _bound(node: Node, index: int, name: str) -> Any:
    found = node.numbers(index, name)
    return found[0] if found else None


def prelu(b: Builder, node: Node) -> FxNode:
    """PRelu with one slope, or one a channel -> nn.PReLU."""
    from torch import nn

    slope = weight(node, 1, "slope")
    shape = node.shape(0)
    per_channel = shape is not None and slope.ndim == len(shape) - 1 and slope.shape[:1] == (slope.size,)
    if slope.size != 1 and not per_channel:
        raise CannotConvert("its slopes are neither one nor one a channel")
    layer = nn.PReLU(slope.size)
    fill(layer.weight, slope.reshape(-1))
    return b.layer(layer, ("PReLU", node.inputs[1]), "prelu", b.tensor(node.inputs[0]))


def _pool(largest: bool) -> Handler:
    def handle(b: Builder, node: Node) -> FxNode:
        from torch import nn

        kernel = node.attribute("kernel_shape")
        rank = len(kernel)
        if rank not in (1, 2, 3) or any(node.outputs[1:]):
            raise CannotConvert("only 1 to 3 dimensions, without indices, are known")
        strides, dilations = node.attribute("strides") or [1] * rank, node.attribute("dilations") or [1] * rank
        pads = padding(node, kernel, strides, dilations)
        ceil = bool(node.attribute("ceil_mode", 0))
        counted = bool(node.attribute("count_include_pad", 0))
        if not largest and (set(dilations) != {1} or (pads[:rank] != pads[rank:] and not counted)):
            raise CannotConvert("an average with dilations, or with padding that is uneven and not counted")
        x, even = evened(b, b.tensor(node.inputs[0]), pads, float("-inf") if largest else 0.0)
        shape, steps, edge = tuple(kernel), tuple(strides), tuple(even)
        module: nn.Module
        if largest:
            kind = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1]
            module = kind(shape, steps, edge, tuple(dilations), ceil_mode=ceil)
        else:
            average = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[rank - 1]
            module = average(shape, steps, edge, ceil, counted)
        return b.layer(module, ("Pool", repr(module)), "pool", x)

    return handle


def _global_pool(largest: bool) -> Handler:
    def handle(b: Builder, node: Node) -> FxNode:
        from torch import nn

        rank = node.rank(0) - 2
        if rank not in (1, 2, 3):
            raise CannotConvert(f"its input has {rank + 2} dimensions")
        kinds = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
        means = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
        module = kinds[rank - 1](1) if largest else means[rank - 1](1)
        return b.layer(module, ("GlobalPool", largest, rank), "pool", b.tensor(node.inputs[0]))

    return handle


ACTIVATIONS: dict[str, Handler] = {
    "AveragePool": _pool(largest=False),
    "Celu": _activation("CELU", lambda nn, n: nn.CELU(n.attribute("alpha", 1.0))),
    "Clip": clip,
    "Elu": _activation("ELU", lambda nn, n: nn.ELU(n.attribute("alpha", 1.0))),
    "Gelu": _activation("GELU", lambda nn, n: nn.GELU(n.attribute("approximate", "none"))),
    "GlobalAveragePool": _global_pool(largest=False),
    "GlobalMaxPool": _global_pool(largest=True),
    "HardSwish": _activation("Hardswish", lambda nn, n: nn.Hardswish()),
    "LeakyRelu": _activation("LeakyReLU", lambda nn, n: nn.LeakyReLU(n.attribute("alpha", 0.01))),
    "LogSoftmax": _softmax(log=True),
    "MaxPool": _pool(largest=True),
    "Mish": _activation("Mish", lambda nn, n: nn.Mish()),
    "PRelu": prelu,
    "Relu": _activation("ReLU", lambda nn, n: nn.ReLU()),
    "Selu": _activation("SELU", lambda nn, n: nn.SELU()),
    "Sigmoid": _activation("Sigmoid", lambda nn, n: nn.Sigmoid()),
    "Softmax": _softmax(log=False),
    "Softplus": _activation("Softplus", lambda nn, n: nn.Softplus()),
    "Softsign": _activation("Softsign", lambda nn, n: nn.Softsign()),
    "Tanh": _activation("Tanh", lambda nn, n: nn.Tanh()),
}
