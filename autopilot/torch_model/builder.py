"""The torch.fx graph under construction: ONNX values by name, layers, constants as parameters or buffers."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.torch_model import host
from autopilot.torch_model.onnx_graph import CannotConvert, Node, OnnxGraph

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import Node as FxNode

# A constant that one of these adds, multiplies or joins in was learned (a position, a class token, a scale);
# a subtracted or dividing one was measured (a mean, a deviation).
_LEARNED_BY = frozenset({"Add", "Mul", "MatMul", "Gemm", "Concat", "Expand", "Tile", "Where"})


class Builder:
    """Collects layers under ``root`` and calls of them in ``graph``."""

    def __init__(self, onnx: OnnxGraph) -> None:
        from torch import fx, nn

        self.onnx = onnx
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, FxNode] = {}
        self.host_values: set[str] = set()
        # How values are made that end a layer which the file spells out in many nodes, see patterns.
        self.patterns: dict[str, Callable[[], FxNode]] = {}
        self._names: set[str] = set()
        self._layers: dict[Hashable, str] = {}
        self._stored: dict[str, FxNode] = {}
        self._users: dict[str, set[str]] = {}
        for node in onnx.nodes:
            for name in node.inputs:
                self._users.setdefault(name, set()).add(node.op)

    def name(self, wanted: str) -> str:
        """An identifier like ``wanted`` that nothing else has."""
        base = re.sub(r"\W", "_", wanted).strip("_") or "x"
        # PyTorch's exporter calls its own values val_1, val_2 …, and fails where a stored one has such a name.
        base = f"m_{base}" if base[0].isdigit() or re.fullmatch(r"val_\d+", base) else base
        found, count = base, 1
        while found in self._names or hasattr(self.root, found):
            count += 1
            found = f"{base}_{count}"
        self._names.add(found)
        return found

    # ---- values ----------------------------------------------------------------------------------

    def tensor(self, name: str) -> FxNode:
        """The value called ``name`` as a tensor."""
        if name in self.values:
            node = self.values[name]
            return self.call(host.tensor, node) if name in self.host_values else node
        if name not in self.onnx.constants:
            raise CannotConvert(f"its input {name!r} is made by a node that can't be converted")
        if name not in self._stored:
            self._stored[name] = self._store(name)
        return self._stored[name]

    def _store(self, name: str) -> FxNode:
        from torch import nn

        tensor = tensor_of(self.onnx.constants[name])
        learned = tensor.is_floating_point() and tensor.numel() > 1 and bool(self._users.get(name, set()) & _LEARNED_BY)
        target = self.name(name)
        if learned:
            self.root.register_parameter(target, nn.Parameter(tensor))
        else:
            self.root.register_buffer(target, tensor)
        return self.graph.get_attr(target)

    def shape_like(self, node: Node, index: int) -> Any:
        """An input that is a shape: a list of numbers now, or a value of numbers while running.

        Raises:
            CannotConvert: it is computed from a tensor's values.
        """
        value = node.constant(index)
        if value is not None:
            return [int(v) for v in value.reshape(-1)] if value.ndim else int(value)
        name = node.inputs[index]
        if name in self.host_values:
            return self.values[name]
        raise CannotConvert("it takes a shape that is computed from values")

    # ---- calls -----------------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> FxNode:
        """A call of ``function`` while running."""
        return self.graph.call_function(function, args, kwargs)

    def method(self, name: str, *args: Any, **kwargs: Any) -> FxNode:
        """A call of a tensor's method; the first argument is the tensor."""
        return self.graph.call_method(name, args, kwargs)

    def layer(self, module: nn.Module, key: Hashable, wanted: str, *args: Any) -> FxNode:
        """A call of ``module``, or of the equal layer added before under the same ``key``."""
        if key not in self._layers:
            target = self.name(wanted)
            self.root.add_module(target, module.eval())
            self._layers[key] = target
        return self.graph.call_module(self._layers[key], args)


def tensor_of(value: Any) -> Any:
    """A torch tensor with a copy of a numpy array.

    Raises:
        CannotConvert: a type that torch can't take from numpy.
    """
    import torch

    try:
        return torch.from_numpy(np.array(value, order="C"))
    except TypeError as exc:
        raise CannotConvert(f"it has a constant of type {value.dtype}") from exc


def layer_name(node: Node, *more: str) -> str:
    """What to call a layer: as in the model it was exported from, where its weights' names (or ``more``) still tell."""
    for name in (*node.inputs[1:3], *more, node.name):
        stem, dot, last = name.rpartition(".")
        if dot and last in ("weight", "bias", "weight_bias", "running_mean"):
            return stem
    return node.name or node.op.lower()
