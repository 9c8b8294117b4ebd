"""Students by kind: what a structural step left, a shallower or narrower copy, or the user's own network."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.contracts import Array, BuildContext
from autopilot.errors import ModelError, Unsupported
from autopilot.recipe import digest
from autopilot.techniques import _torch
from autopilot.torch_model import records
from autopilot.torch_model.calling import Call, module_call
from autopilot.torch_model.load import build_module, code_digest
from autopilot.torch_model.prune import Plan, Pruner
from autopilot.torch_model.students import Judge, shallower
from autopilot.torch_model.train import Trainer

if TYPE_CHECKING:
    from torch import Tensor, nn

# Samples on which the change of answers by a block, or a group of channels, is measured.
_JUDGED_ON = 64
_WIDTHS_JUDGED_ON = 256
# Kernels work on 8 channels at once; other widths were seen slower than wider ones.
_ROUND_TO = 8
# Weights of the layers that are compared: more pairs cost time, and neighbours say the same.
_MOST_PAIRS = 6


@dataclass(frozen=True, slots=True)
class Made:
    """A student and how it is called; ``own``: it is no changed copy of the teacher."""

    module: nn.Module
    call: Call
    own: bool = False

    def recorded(self, context: BuildContext) -> BuildContext | None:
        """What ``_torch.write`` needs to keep a record; none of the user's own student, whose code is another."""
        return None if self.own else context


def make(kind: str, keep: float, start: _torch.Source, trainer: Trainer, *, kept: Path, context: BuildContext) -> Made:
    """The untrained student of ``start``; how a smaller copy is made is noted as ``kept``, for the next time.

    Raises:
        Unsupported: there is none of this kind.
    """
    if kind == "same":
        return Made(start.module, start.call)
    if kind == "depth":
        return Made(_shallower(start, keep, trainer, kept), start.call)
    if kind == "width":
        found = records.rebuild(copy.deepcopy(start.module), kept)
        return Made(found or _narrower(start, keep, trainer, kept), start.call)
    return _own(start, trainer, context)


def _shallower(start: _torch.Source, keep: float, trainer: Trainer, kept: Path) -> nn.Module:
    """A copy with this share of the repeated blocks."""
    judge = Judge(lambda m: trainer.answers(m, _JUDGED_ON), trainer.shapes, trainer.shapes)
    try:
        known = tuple(records.load(kept)[1]["blocks"])
    except (FileNotFoundError, ValueError):
        known = ()
    module, gone = shallower(start.module, keep, judge, known)
    if not known:
        records.save(kept, {}, {"blocks": gone})
    trainer.settle(module)
    return module


def _narrower(start: _torch.Source, keep: float, trainer: Trainer, kept: Path) -> nn.Module:
    """A copy with this share of every group of channels, those that matter least removed."""
    plain, keywords = trainer.call.arguments(trainer.split.feed([0, 1]))
    pruner = Pruner(
        keywords or plain,
        lambda module: trainer.answers(module, _WIDTHS_JUDGED_ON),
        trainer.shapes,
        trainer.settle,
        trainer.gradients,
    )
    module = pruner.prune(start.module, Plan(1.0 - keep, "taylor", "uniform", _ROUND_TO))
    trainer.settle(module)
    records.keep(module, kept)
    return module


def _own(start: _torch.Source, trainer: Trainer, context: BuildContext) -> Made:
    """The user's own student, which must answer as the model does, in shape."""
    code = context.torch_source.student if context.torch_source is not None else None
    if code is None:
        raise Unsupported("the spec names no student.", "Add model.student: FILE.py:function.")
    try:
        _seed()
        module = build_module(code)
        call = module_call(module, tuple(trainer.split.feed([0])))
        given = Trainer(trainer.split, call, trainer.classes, trainer.output).shapes(module.eval())
    except (ModelError, RuntimeError, ValueError, TypeError) as exc:
        raise Unsupported(f"the student {code} can't be used: {exc}.") from exc
    wanted = trainer.shapes(start.module)
    if given != wanted:
        raise Unsupported(f"the student {code} answers with {given}; the model with {wanted}.")
    return Made(module, call, own=True)


def _seed() -> None:
    """Draw a new network's weights alike every time."""
    import importlib

    importlib.import_module("torch").manual_seed(0)


def own_code_digest(context: BuildContext) -> str | None:
    """What the user's own student depends on."""
    source = context.torch_source
    return code_digest(source.student) if source is not None and source.student is not None else None


def origin(module: nn.Module, context: BuildContext) -> str:
    """What a module that isn't the user's student was made from: an ONNX file, or code with this digest."""
    source = context.torch_source
    if records.is_graph(module) or source is None or source.code is None:
        return "onnx"
    return code_digest(source.code)


def layout(module: nn.Module) -> str:
    """A digest of the names and shapes of a module's weights: what a checkpoint has to fit."""
    return digest([[name, list(value.shape)] for name, value in module.state_dict().items()])


def tensor(values: Array) -> Tensor:
    """An array as a tensor."""
    import importlib

    found: Any = importlib.import_module("torch").from_numpy(values)
    return found


def pairs(student: Made, teacher: nn.Module) -> tuple[tuple[str, str], ...]:
    """Names of an untrained student's layers and of the teacher's to compare, a few, evenly chosen.

    Norms, whose outputs hold all that a block did; convolutions where there are none. A layer's counterpart is the
    one whose weights it has (blocks that were taken out shift the names in a list), else the one of its name.
    """
    for kinds in (("LayerNorm", "BatchNorm2d", "BatchNorm1d"), ("Conv2d", "Linear")):
        mine, theirs = _of(student.module, kinds), _of(teacher, kinds)
        found = [(name, other) for name, m in mine.items() if (other := _counterpart(name, m, theirs)) is not None]
        if found:
            step = max(1, len(found) // _MOST_PAIRS)
            return tuple(found[step - 1 :: step])
    return ()


def _of(module: nn.Module, kinds: tuple[str, ...]) -> dict[str, nn.Module]:
    return {name: m for name, m in module.named_modules() if name and type(m).__name__ in kinds}


def _counterpart(name: str, layer: nn.Module, others: dict[str, nn.Module]) -> str | None:
    weights = dict(layer.named_parameters())
    for other, candidate in others.items():
        theirs = dict(candidate.named_parameters())
        if weights.keys() == theirs.keys() and all(
            w.shape == theirs[n].shape and bool((w == theirs[n]).all()) for n, w in weights.items()
        ):
            return other
    return name if name in others else None
