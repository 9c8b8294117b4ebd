"""ONNX -> PyTorch: a module of real layers that can be trained, pruned and exported again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.errors import Unsupported
from autopilot.torch_model import patterns
from autopilot.torch_model.activations import ACTIVATIONS
from autopilot.torch_model.builder import Builder
from autopilot.torch_model.calling import Call
from autopilot.torch_model.functions import FUNCTIONS
from autopilot.torch_model.host_nodes import on_host
from autopilot.torch_model.layers import LAYERS
from autopilot.torch_model.messages import listed
from autopilot.torch_model.onnx_graph import CannotConvert, Node, OnnxGraph

if TYPE_CHECKING:
    from torch.fx import GraphModule

HANDLERS = {**FUNCTIONS, **ACTIVATIONS, **LAYERS}
_BEGINS_PATTERN = frozenset({"Erf", "Tanh", "Sqrt"})
_MAKES_SHAPES = frozenset({"Shape", "Size"})
_WHY = {
    "If": "control flow",
    "Loop": "control flow",
    "Scan": "control flow",
    "LSTM": "recurrent layers",
    "GRU": "recurrent layers",
    "RNN": "recurrent layers",
}


@dataclass(frozen=True, slots=True)
class Converted:
    """``module`` answers with a dict of output names to tensors; ``call`` says how it takes the ONNX inputs."""

    module: GraphModule
    call: Call

    def outputs(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """What the module answers to numpy inputs by ONNX name: tensors by output name."""
        plain, keywords = self.call.arguments(feed)
        answer: dict[str, Any] = self.module(*plain, **keywords)
        return answer


def from_onnx(path: Path) -> Converted:
    """The ONNX file as a ``torch.fx.GraphModule`` in evaluation mode.

    Convolutions, linear layers (a MatMul by a stored matrix with the Add that follows), norms, embeddings,
    pooling and activations are ``torch.nn`` layers, named as in the model that was exported where its
    weights' names tell. Floats that are added or multiplied are parameters too; other constants are buffers.
    Whether it answers alike is for the caller to check, on real inputs.

    Raises:
        ModelError: no ONNX model.
        Unsupported: what ``unsupported`` lists.
    """
    converted, problems = _convert(path)
    if problems or converted is None:
        raise Unsupported(f"this ONNX model can't become a PyTorch one: {listed(problems, 5)}.")
    return converted


def unsupported(path: Path) -> list[str]:
    """What of the ONNX file can't be converted, a line a kind of node; empty when all can.

    Raises:
        ModelError: no ONNX model.
    """
    return _convert(path)[1]


def _convert(path: Path) -> tuple[Converted | None, list[str]]:
    onnx = OnnxGraph(path)
    builder = Builder(onnx)
    placeholders = []
    for name in onnx.inputs:
        placeholder = builder.graph.placeholder(builder.name(name))
        placeholders.append(str(placeholder.target))
        builder.values[name] = placeholder
    problems: Counter[str] = Counter()
    lost: set[str] = set()
    for node in onnx.nodes:
        if lost & set(node.inputs):
            lost |= set(node.outputs)  # behind a node that was refused: its own reason is enough
            if node.op in HANDLERS:
                continue
        try:
            _take(builder, node)
        except CannotConvert as exc:
            problems[f"{node.op}: {exc}"] += 1
            lost |= set(node.outputs)
    if problems:
        return None, [f"{text} ({n} nodes)" if n > 1 else text for text, n in problems.items()]
    return _finish(builder, Call(tuple(onnx.inputs), tuple(placeholders), len(placeholders))), []


def _take(builder: Builder, node: Node) -> None:
    """Add one node; its outputs become values.

    Raises:
        CannotConvert: why it can't be.
    """
    if node.raw.domain not in ("", "ai.onnx"):
        raise CannotConvert(f"an operator of {node.raw.domain}, not of ONNX; give the model before it was optimized")
    if all(o in builder.values for o in node.outputs if o):
        return  # an Add that became a layer's bias
    if builder.onnx.evaluate(node):
        return
    if node.op in _BEGINS_PATTERN:
        patterns.look(builder, node)
    if node.outputs[0] in builder.patterns:
        builder.values[node.outputs[0]] = builder.patterns[node.outputs[0]]()
        return
    made = on_host(builder, node)
    if made is not None:
        builder.host_values.add(node.outputs[0])
    else:
        handler = HANDLERS.get(node.op)
        if handler is None:
            raise CannotConvert(_WHY.get(node.op, "not among the operators that are converted"))
        made = handler(builder, node)
        if node.op in _MAKES_SHAPES:
            builder.host_values.add(node.outputs[0])
    results = made if isinstance(made, list) else [made]
    if any(node.outputs[len(results) :]):
        raise CannotConvert("more than its first output is used")
    for name, value in zip(node.outputs, results, strict=False):
        if name:
            builder.values[name] = value


def _finish(builder: Builder, call: Call) -> Converted:
    from torch import fx

    builder.graph.output({name: builder.tensor(name) for name in builder.onnx.outputs})
    module = fx.GraphModule(builder.root, builder.graph, class_name="FromOnnx")
    module.graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()
    return Converted(module.eval(), call)
