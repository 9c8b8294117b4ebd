"""Shallower copies of a network: blocks taken out where the answers change least, the others' weights kept.

Of a module, blocks are like children of a list (``ModuleList``, ``Sequential``) that answer in the shape that they are
given; of a graph that was made of an ONNX file, like stretches between two values of one shape that nothing else
leaves. Which ones go is measured, one after the other (as ShortGPT, Men et al. 2024, does for language models).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autopilot.errors import Unsupported
from autopilot.torch_model import segments
from autopilot.torch_model.records import is_graph, signature

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Block:
    """One block that can be taken out: ``take_out(copy)`` removes it from a copy of the module, in place."""

    name: str
    take_out: Callable[[nn.Module], None]


@dataclass(frozen=True, slots=True)
class Judge:
    """How a network with a block less is judged.

    ``answers(module)``: the compared output on some samples; ``shapes(module)``: all outputs' shapes for two
    samples, which must stay; ``run(module)`` calls it on these.
    """

    answers: Callable[[nn.Module], Tensor]
    shapes: Callable[[nn.Module], Any]
    run: Callable[[nn.Module], object]


def shallower(
    module: nn.Module, share: float, judge: Judge, known: Sequence[str] = ()
) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy with about ``share`` of its repeated blocks, at least one, neither trained nor settled.

    Also the names of the blocks that went, in that order; ``known`` are those of an earlier call, which spares the
    measuring.

    Raises:
        Unsupported: there are no repeated blocks, or ``share`` of them is all of them.
    """
    blocks = _blocks(module, judge)
    left = max(1, round(share * len(blocks)))
    if len(blocks) < 2:
        raise Unsupported("it has no repeated blocks whose inputs and outputs have one shape.", "Use another student.")
    if left >= len(blocks):
        raise Unsupported(f"{share:.0%} of its {len(blocks)} repeated blocks is all of them.", "Keep a smaller share.")
    out, gone = copy.deepcopy(module), list(known)
    for name in known:
        next(block for block in _blocks(out, judge) if block.name == name).take_out(out)
    if not known:
        reference, shapes = judge.answers(module), judge.shapes(module)
        for _ in range(len(blocks) - left):
            name, out = _without_one(out, judge, reference, shapes)
            gone.append(name)
    return out, tuple(gone)


def _without_one(module: nn.Module, judge: Judge, reference: Tensor, shapes: Any) -> tuple[str, nn.Module]:
    """The name of the block that the answers miss least, and a copy without it."""
    import torch

    best: tuple[float, str, nn.Module] | None = None
    for block in _blocks(module, judge):
        trial = copy.deepcopy(module)
        try:
            block.take_out(trial)
            if judge.shapes(trial) != shapes:
                continue
            apart = float(((judge.answers(trial) - reference).float() ** 2).mean())
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError):
            continue  # its code counts its blocks
        if torch.isfinite(torch.tensor(apart)) and (best is None or apart < best[0]):
            best = (apart, block.name, trial)
    if best is None:
        raise Unsupported("none of its repeated blocks can be left out: it fails without, or answers in another shape.")
    return best[1:]


def _blocks(module: nn.Module, judge: Judge) -> Sequence[Block]:
    if is_graph(module):
        return [Block(s.end, s.take_out) for s in segments.repeated(module, judge.run)]
    return _children(module, judge.run)


def _children(module: nn.Module, run: Callable[[nn.Module], object]) -> Sequence[Block]:
    """Like children of the lists in ``module`` that answer in the shape they are given."""
    from torch import nn

    lists = {n: m for n, m in module.named_modules() if isinstance(m, (nn.ModuleList, nn.Sequential))}
    runs = [(name, index) for name, holder in lists.items() for index in _alike(holder)]
    kept = _same_shape(module, [_child_name(name, index) for name, index in runs], run)
    found = [(name, index) for name, index in runs if _child_name(name, index) in kept]
    # A list inside of a block goes with it: only the outermost count.
    outer = [name for name, _ in found]
    found = [(n, i) for n, i in found if not any(n != o and n.startswith(f"{o}." if o else "") for o in outer)]
    return [Block(_child_name(n, i), _remover(n, i)) for n, i in found]


def _remover(name: str, index: int) -> Callable[[nn.Module], None]:
    def take_out(module: nn.Module) -> None:
        del module.get_submodule(name)[index]

    return take_out


def _child_name(name: str, index: int) -> str:
    return f"{name}.{index}" if name else str(index)


def _alike(holder: Any) -> list[int]:
    """Places of children with weights that are made like one of their neighbours, of the same sizes."""
    marks = [(signature(c), tuple(tuple(p.shape) for p in c.parameters())) for c in holder]
    near = [
        i
        for i, mark in enumerate(marks)
        if mark[1] and (mark in marks[max(0, i - 1) : i] or mark in marks[i + 1 : i + 2])
    ]
    return near


def _same_shape(module: nn.Module, names: Sequence[str], run: Callable[[nn.Module], object]) -> set[str]:
    """The layers among ``names`` whose first input and output are tensors of one shape and type."""
    import torch

    kept: set[str] = set()
    handles = []
    layers = dict(module.named_modules())

    def watch(name: str) -> Callable[..., None]:
        def look(layer: nn.Module, given: Any, answer: Any) -> None:
            tensors = [v for v in (*given[:1], answer) if isinstance(v, torch.Tensor)]
            if len(tensors) == 2 and len({(v.shape, v.dtype) for v in tensors}) == 1:
                kept.add(name)

        return look

    for name in names:
        handles.append(layers[name].register_forward_hook(watch(name)))
    try:
        run(module)
    finally:
        for handle in handles:
            handle.remove()
    return kept
