"""A module that computes as a QDQ file will, in float, so that it can be trained; imports torch when imported.

Rounding passes gradients through and clipping stops them (Jacob et al. 2018); the scales of activations are
trained with the weights, as factors of those from calibration (LSQ, Esser et al. 2020).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autopilot.errors import Unsupported
from autopilot.torch_model import convert
from autopilot.torch_model.builder import Builder
from autopilot.torch_model.calling import Call
from autopilot.torch_model.layers import LAYERS
from autopilot.torch_model.messages import listed
from autopilot.torch_model.onnx_graph import Array, CannotConvert, Node, OnnxGraph

if TYPE_CHECKING:
    from torch.fx import GraphModule

# A scale of nothing would divide by zero; ONNX Runtime's own smallest scale is of this order.
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Weights:
    """How weights are stored: int8 without zero point; ``names`` of those that are, ``largest`` integer used."""

    names: frozenset[str]
    per_channel: bool
    largest: int


class FakeActivation(nn.Module):  # type: ignore[misc]
    """QuantizeLinear and DequantizeLinear of one scale, whose logarithm is trained."""

    def __init__(self, scale: float, zero_point: int, bounds: tuple[int, int]) -> None:
        super().__init__()
        self.log_factor = nn.Parameter(torch.zeros(()))
        self.start, self.zero_point, self.bounds = scale, zero_point, bounds

    def scale(self) -> Tensor:
        """The scale as trained so far, never above the one from calibration.

        ONNX Runtime drops a Relu or Clip that the range of what follows does already; a wider range would undo it.
        """
        return self.start * self.log_factor.clamp(max=0.0).exp()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded and clipped, float32, any shape."""
        return _rounded(x, self.scale(), self.zero_point, self.bounds)


class FakeWeight(nn.Module):  # type: ignore[misc]
    """A weight as int8 would hold it, a scale for each of the first dimension where ``per_channel``."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.per_channel, self.largest = weights.per_channel, weights.largest

    def forward(self, w: Tensor) -> Tensor:
        """``w`` rounded, same shape."""
        size = w.detach().abs()
        top = size.amax(tuple(range(1, w.ndim)), keepdim=True) if self.per_channel else size.max()
        scale = (top / self.largest).clamp(min=_SMALLEST)
        return _rounded(w, scale, 0, (-self.largest, self.largest))


def as_targets(values: Array, threads: int) -> Tensor:
    """``values`` (any shape) as a tensor; torch computes on ``threads`` threads from now on."""
    torch.set_num_threads(threads)
    return torch.from_numpy(values)


def _rounded(x: Tensor, scale: Tensor, zero_point: int, bounds: tuple[int, int]) -> Tensor:
    held = (x / scale + zero_point).clamp(*bounds)
    return (held + (held.round() - held).detach() - zero_point) * scale


@dataclass(frozen=True, slots=True)
class Fake:
    """``module`` and how it takes inputs; ``owners``: stored tensor -> (parameter, whether it is transposed)."""

    module: GraphModule
    call: Call
    activations: Mapping[str, FakeActivation]
    owners: Mapping[str, tuple[nn.Parameter, bool]]

    def stored(self, name: str) -> Array:
        """The trained values of a stored tensor of the ONNX model, in its own layout."""
        parameter, turned = self.owners[name]
        value = parameter.detach()
        found: Array = (value.T if turned else value).contiguous().numpy().copy()
        return found

    def range(self, scale_name: str, symmetric: bool) -> tuple[float, float]:
        """Lowest and highest value that the scale called ``scale_name`` can hold now."""
        fake = self.activations[scale_name]
        scale = float(fake.scale().detach())
        low, high = fake.bounds
        if symmetric:
            return -high * scale, high * scale
        return (low - fake.zero_point) * scale, (high - fake.zero_point) * scale


def fake_quantized(path: Path, weights: Weights) -> Fake:
    """The module of a model whose activations are in QDQ form and whose weights are still float.

    Raises:
        Unsupported: a node that can't be converted.
    """
    onnx = OnnxGraph(path)
    builder = Builder(onnx)
    places = []
    for name in onnx.inputs:
        builder.values[name] = place = builder.graph.placeholder(builder.name(name))
        places.append(str(place.target))
    fakes: dict[str, FakeActivation] = {}
    made: dict[str, Any] = {}
    for node in onnx.nodes:
        try:
            if node.op == "QuantizeLinear":
                fake = _activation(node)
                layer = builder.layer(fakes.setdefault(node.inputs[1], fake), ("fake", node.inputs[1]), "fake",
                                      builder.tensor(node.inputs[0]))  # fmt: skip
                builder.values[node.outputs[0]] = layer
            elif node.op == "DequantizeLinear":
                builder.values[node.outputs[0]] = builder.tensor(node.inputs[0])
            else:
                convert._take(builder, node)
                if node.op in LAYERS and node.outputs[0] in builder.values:
                    made[node.outputs[0]] = builder.values[node.outputs[0]].target
        except CannotConvert as exc:
            raise Unsupported(
                f"this ONNX model can't become a PyTorch one: {listed([f'{node.op}: {exc}'], 1)}."
            ) from exc
    done = convert._finish(builder, Call(tuple(onnx.inputs), tuple(places), len(places)))
    owners = _owners(onnx, builder, done.module, made)
    _fake_weights(done.module, owners, weights)
    trained = {id(p) for p, _ in owners.values()} | {id(f.log_factor) for f in fakes.values()}
    for parameter in done.module.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    # Batch norms that couldn't be folded keep the statistics that the file has.
    done.module.__dict__["train"] = lambda mode=True: done.module
    return Fake(done.module, done.call, fakes, owners)


def _activation(node: Node) -> FakeActivation:
    scale, zero = node.constant(1), node.constant(2)
    if scale is None or zero is None or scale.size != 1:
        raise CannotConvert("its scale isn't one stored number")
    bounds = (0, 255) if zero.dtype.kind == "u" else (-128, 127)
    return FakeActivation(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), bounds)


def _owners(
    onnx: OnnxGraph, builder: Builder, module: GraphModule, made: Mapping[str, Any]
) -> dict[str, tuple[nn.Parameter, bool]]:
    """Which parameter holds which stored tensor; those that several nodes read stay as they are."""
    readers = Counter(i for n in onnx.nodes for i in n.inputs)
    found: dict[str, tuple[nn.Parameter, bool]] = {}

    def add(name: str, parameter: Any, turned: bool = False) -> None:
        stored = onnx.constants.get(name)
        if isinstance(parameter, nn.Parameter) and stored is not None and readers[name] == 1:
            shape = tuple(parameter.T.shape) if turned else tuple(parameter.shape)
            if shape == stored.shape and name not in onnx.outputs:
                found[name] = (parameter, turned)

    for node in onnx.nodes:
        target = made.get(node.outputs[0])
        layer = module._modules.get(target) if isinstance(target, str) else None
        if layer is None or (
            node.op == "Gemm" and (node.attribute("alpha", 1.0), node.attribute("beta", 1.0)) != (1, 1)
        ):
            continue
        turned = node.op == "MatMul" or (node.op == "Gemm" and not node.attribute("transB", 0))
        add(node.inputs[1], layer.weight, turned)
        bias = node.inputs[2] if node.has(2) else _added(onnx, node)
        add(bias, layer.bias)
    for name, attribute in builder._stored.items():
        add(name, getattr(module, str(attribute.target), None))
    return found


def _added(onnx: OnnxGraph, node: Node) -> str:
    """The stored tensor that the Add behind a MatMul adds; empty where none is."""
    adds = [n for n in onnx.nodes if n.op == "Add" and node.outputs[0] in n.inputs]
    return next((i for n in adds for i in n.inputs if i in onnx.constants), "")


def _fake_weights(module: GraphModule, owners: Mapping[str, tuple[nn.Parameter, bool]], weights: Weights) -> None:
    names = {id(p): name for name, (p, _) in owners.items()}
    for layer in list(module.modules()):
        parameter = getattr(layer, "weight", None)
        if isinstance(parameter, nn.Parameter) and names.get(id(parameter)) in weights.names:
            parametrize.register_parametrization(layer, "weight", FakeWeight(weights))
