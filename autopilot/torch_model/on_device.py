"""A converted module moved to a device and computed in another float type, and where its values then lie.

Only for inference: the graph is changed in place.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from autopilot.torch_model import host, operators

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from torch.fx import GraphModule
    from torch.fx import Node as FxNode

# The precision that leaves every type as the file has it; nearly always float32.
OWN = "float32"
HALVES = ("float16", "bfloat16")
# Functions that make tensors of nothing: PyTorch puts those on the host unless told otherwise.
_MAKERS = frozenset({operators.arange, operators.full, host.tensor})
# Functions that name a type.
_NAMES_TYPE = frozenset({operators.cast, operators.full})
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def place(module: GraphModule, device: str) -> None:
    """Move ``module`` to ``device``, the tensors that it makes while it runs too."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _MAKERS:
            node.kwargs = {**node.kwargs, "device": device}
    module.recompile()
    module.to(device)


def compute_in(module: GraphModule, precision: str, *, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Make ``module`` compute its floats in ``precision``, between inputs and outputs of the types that it had.

    The casts at both ends are part of the graph, so that a compiler joins them with what follows and precedes.
    Weights and constants beyond the type's range become its largest value: as infinities, the masks of
    attention (0 * -3.4e38) would be no numbers.

    Args:
        module: as ``from_onnx`` makes it.
        precision: ``float16`` or ``bfloat16``.
        inputs: numpy's names of the inputs' types, by the names that ``module`` has for them.
        outputs: those of the outputs, by name.
    """
    import torch

    kind: dtype = getattr(torch, precision)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = _cast(tensor.data, kind)
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "placeholder" and inputs[str(node.target)] in _FLOATS:
            _narrow(node, precision)
        elif node.op == "call_function":
            _retype(node, precision)
        elif node.op == "output":
            node.args = ({name: _back(node, value, outputs[name]) for name, value in node.args[0].items()},)
    module.recompile()


def _cast(tensor: Tensor, kind: dtype) -> Tensor:
    import torch

    most = torch.finfo(kind).max
    return torch.where(tensor.isinf(), tensor, tensor.clamp(-most, most)).to(kind)


def _retype(node: FxNode, precision: str) -> None:
    """``node`` with ``precision`` for the float types that it names, and its constants inside of that range."""
    import torch
    from torch.fx.node import map_aggregate

    most = float(torch.finfo(getattr(torch, precision)).max)

    def change(value: Any) -> Any:
        if isinstance(value, float) and math.isfinite(value):
            return min(max(value, -most), most)
        return precision if node.target in _NAMES_TYPE and value in _FLOATS else value

    node.args = map_aggregate(node.args, change)
    node.kwargs = map_aggregate(node.kwargs, change)


def _narrow(given: FxNode, precision: str) -> None:
    with given.graph.inserting_after(given):
        cast = given.graph.call_function(operators.cast, (given, precision))
    given.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)


def _back(output: FxNode, value: FxNode, wanted: str) -> FxNode:
    if wanted not in _FLOATS:
        return value
    with output.graph.inserting_before(output):
        return output.graph.call_function(operators.cast, (value, wanted))


def devices(
    module: GraphModule, inputs: Sequence[Tensor], mode: AbstractContextManager[Any] | None = None
) -> Counter[str]:
    """How many calls of ``module`` give tensors on which kind of device; calls that give none count nowhere.

    ``mode``: what to run under, a ``FakeTensorMode`` to compute nothing.
    """
    import torch
    from torch import fx
    from torch.utils._pytree import tree_leaves

    found: Counter[str] = Counter()

    class Watch(fx.Interpreter):  # type: ignore[misc]  # fx has no types
        def run_node(self, n: FxNode) -> Any:
            result = super().run_node(n)
            kinds = {leaf.device.type for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
            if n.op.startswith("call_"):
                found.update(kinds)
            return result

    with torch.inference_mode(), mode or nullcontext():
        Watch(module).run(*inputs)
    return found


def traced(module: GraphModule, inputs: Sequence[tuple[tuple[int, ...], str]], device: str) -> Counter[str]:
    """As ``devices``, computing nothing, for inputs of these shapes and types on ``device``.

    With the tensors without data that torch.compile itself traces with: they know devices that aren't there, and
    refuse to mix them as the real ones do.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        example = [torch.empty(shape, dtype=getattr(torch, kind), device=device) for shape, kind in inputs]
    return devices(module, example, mode)
