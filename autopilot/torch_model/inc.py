"""neural-compressor's int8 for PyTorch: a module as an exported program in quantized form.

Since 3.8 it is a layer over torchao's PT2E quantization, with the operators that inductor quantizes on x86.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from autopilot.errors import Unsupported
from autopilot.torch_model.calling import Call
from autopilot.torch_model.export import BATCH
from autopilot.torch_model.messages import first_line, root_line
from autopilot.torch_model.quiet import quiet

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

Feed = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to quantize.

    ``algorithm``: static, dynamic or smooth_quant; ``observer``: how ranges of activations are taken, minmax or
    kl; ``per_channel``: a scale a channel of the weights, not one for all.
    """

    algorithm: str
    observer: str
    per_channel: bool

    def config(self) -> Any:
        """neural-compressor's own configuration."""
        from neural_compressor.torch import quantization

        kinds = {
            "static": quantization.StaticQuantConfig,
            "dynamic": quantization.DynamicQuantConfig,
            "smooth_quant": quantization.SmoothQuantConfig,
        }
        granularity = "per_channel" if self.per_channel else "per_tensor"
        return kinds[self.algorithm](act_algo=self.observer, w_granularity=granularity)


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs that the program is traced with; the first dimension of ``free`` ones is left free."""

    feed: Feed
    free: tuple[str, ...]


def quantized(
    module: nn.Module, call: Call, example: Example, calibration: Sequence[Feed], settings: Settings
) -> tuple[ExportedProgram, Call]:
    """``module`` with quantizing and dequantizing nodes, ranges from ``calibration``; and how it takes its inputs.

    Raises:
        Unsupported: torch can't trace the module, or neural-compressor can't quantize it on this machine.
    """
    import torch

    with quiet(), torch.no_grad():
        changed = _quantize(module, call, example, calibration, settings)
        program = _program(changed, call, example)
    own = tuple(str(name) for name in program.graph_signature.user_inputs)
    return program, Call(call.names, own, call.positional)


def _quantize(
    module: nn.Module, call: Call, example: Example, calibration: Sequence[Feed], settings: Settings
) -> GraphModule:
    """The module with quantizing nodes.

    Raises:
        Unsupported: a step of neural-compressor fails, with its own words.
    """
    from neural_compressor.torch.quantization import convert, prepare

    program = _program(module, call, example)
    traced: Any = program.module()
    # What its own export() leaves on the module; that one logs a failure and returns nothing.
    traced._exported, traced.dynamic_shapes = True, None
    plain, keywords = call.arguments(example.feed)
    try:
        prepared = prepare(traced, settings.config(), example_inputs=(*plain, *keywords.values()))
        for feed in calibration:
            plain, keywords = call.arguments(feed)
            prepared(*plain, **keywords)
        changed: GraphModule = convert(prepared)
        _store_integers(changed)
        _rename_stored(changed)
    except Exception as exc:  # its own asserts, torchao's and torch's errors, of any kind
        what = f"neural-compressor's {settings.algorithm} can't quantize the model here"
        raise Unsupported(f"{what} ({type(exc).__name__}: {root_line(exc)}).") from exc
    return changed


def _program(module: nn.Module, call: Call, example: Example) -> ExportedProgram:
    """What torch traces of ``module``.

    Raises:
        Unsupported: it can't.
    """
    import torch

    plain, keywords = call.arguments(example.feed)
    batch = torch.export.Dim(BATCH)
    names = zip(call.names, call.parameters, strict=True)
    shapes = {p: {0: batch} if n in example.free else None for n, p in names} if example.free else None
    try:
        # Strict as neural-compressor's own export(): what the other way notes of a graph made of ONNX nodes has
        # torchao take several layers for one ("Input partition has more than one output node").
        return torch.export.export(module, plain, keywords, dynamic_shapes=shapes, strict=True)
    except Exception as exc:  # tracing runs the module and raises whatever that or torch can't do
        raise Unsupported(f"torch.export can't trace the model ({first_line(exc)}).") from exc


def _store_integers(module: GraphModule) -> None:
    """Keep weights as int8: ``convert`` has no way to ask for it, and writes floats that are rounded at each load."""
    from torchao.quantization.pt2e.constant_fold import constant_fold

    constant_fold(module, _quantizes)


def _rename_stored(module: GraphModule) -> None:
    """Take stored tensors out of the exporter's way: it calls its own values val_0 and so on.

    A module made of an ONNX file may hold tensors of such names, since torch's exporter wrote that one too.
    """
    import torch

    renamed: dict[str, str] = {}
    for node in module.graph.nodes:
        old = str(node.target)
        value = operator.attrgetter(old)(module) if node.op == "get_attr" else None
        if not isinstance(value, torch.Tensor):
            continue
        if old not in renamed:
            renamed[old] = f"stored_{len(renamed)}"
            module.register_buffer(renamed[old], value.detach())
        node.target = renamed[old]
    module.recompile()


def _quantizes(node: Node) -> bool:
    return node.op == "call_function" and "quantized_decomposed.quantize_" in str(node.target)
