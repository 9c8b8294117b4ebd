"""How much a network's loss feels that a unit is taken away: gradients on masks, a request at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import Unsupported

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autopilot.torch_model.convert import Converted

Array = npt.NDArray[Any]
_SEED = 0


@dataclass(frozen=True, slots=True)
class Gradients:
    """What one mask felt.

    ``units``: float64, shape (requests, units), the loss's derivative by each unit's mask. ``rows``: a float32
    array a request, shape (rows,): the squared derivative by all that a row (a token) brings; 0 is padding.
    """

    units: Array
    rows: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Masked:
    """A network with masks; ``taps`` are the layers that apply them, ``output`` names what is scored."""

    converted: Converted
    taps: tuple[Any, ...]
    output: str

    @classmethod
    def of(cls, converted: Converted, masks: Sequence[str], output: str) -> Masked:
        """``converted``, whose products with the parameters called ``masks`` become layers that can be read.

        Raises:
            Unsupported: a mask was lost on the way.
        """
        module = converted.module
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        taps = tuple(_tap(module, name) for name in masks)
        module.graph.eliminate_dead_code()
        module.recompile()
        return cls(converted, taps, output)

    def put_on(self, masks: Sequence[Array]) -> None:
        """Set the masks, shape (width,) each."""
        import torch

        for tap, mask in zip(self.taps, masks, strict=True):
            tap.mask.copy_(torch.from_numpy(mask.astype(np.float32)))

    def gradients(
        self, requests: Iterable[tuple[Mapping[str, Array], Any]], classes: bool, inner: Sequence[int]
    ) -> list[Gradients]:
        """The gradients on the masks: a list as long as ``inner``, the number of channels in a unit of each.

        ``requests``: inputs, with labels or None; without labels, answers are drawn from what the network itself
        says, which makes the mean of squares its Fisher information.

        Raises:
            Unsupported: the output has no gradient.
        """
        import torch

        generator = torch.Generator().manual_seed(_SEED)
        units: list[list[Array]] = [[] for _ in inner]
        rows: list[list[Array]] = [[] for _ in inner]
        for feed, labels in requests:
            with torch.enable_grad():
                scores = self.converted.outputs(feed)[self.output]
                if not scores.is_floating_point() or not scores.requires_grad:
                    raise Unsupported(f"its output {self.output!r} has no gradient that tells what matters.")
                _loss(scores, labels, classes, generator).backward()
            for i, (tap, channels) in enumerate(zip(self.taps, inner, strict=True)):
                felt = (tap.applied.grad * tap.applied.detach()).reshape(-1, tap.applied.shape[-1])
                units[i].append(felt.sum(0).reshape(-1, channels).sum(1).double().numpy())
                rows[i].append((tap.applied.grad**2).sum(-1).reshape(-1).numpy())
                tap.applied = None
        return [Gradients(np.array(u), tuple(r)) for u, r in zip(units, rows, strict=True)]


def _tap(module: Any, name: str) -> nn.Module:
    """Replace the product with the parameter called ``name`` by a layer."""
    from torch import nn

    class Tap(nn.Module):
        """Applies a mask and keeps the result, with its gradient, for reading."""

        def __init__(self, mask: Tensor) -> None:
            super().__init__()
            self.register_buffer("mask", mask)
            self.applied: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            y = x * self.mask
            if not y.requires_grad:
                y.requires_grad_()
            if y.requires_grad:  # not under no_grad
                y.retain_grad()
                self.applied = y
            return y

    for node in module.graph.nodes:
        masks = [a for a in node.args if getattr(a, "op", "") == "get_attr" and a.target == name]
        if node.op == "call_function" and masks:
            tap = Tap(getattr(module, name).detach().clone())
            module.add_submodule(f"{name}_tap", tap)
            (x,) = (a for a in node.args if a not in masks)
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(made := module.graph.call_module(f"{name}_tap", (x,)))
            module.graph.erase_node(node)
            assert made is not None
            return tap
    raise Unsupported(f"the mask {name!r} was lost in the conversion.")


def _loss(scores: Tensor, labels: Any, classes: bool, generator: Any) -> Tensor:
    """Cross-entropy of classes; of numbers a random projection, whose squared gradient is that of half the MSE."""
    import torch
    from torch.nn import functional

    if not classes or scores.ndim < 2:
        return (scores * torch.randn(scores.shape, generator=generator)).sum()
    flat = scores.reshape(-1, scores.shape[-1])
    if bool((flat >= 0).all()) and bool(((flat.sum(-1) - 1).abs() < 1e-3).all()):
        flat = flat.clamp(min=1e-9).log()  # probabilities already
    wanted = _fitting(labels, flat.shape)
    if wanted is None:
        wanted = torch.multinomial(flat.detach().softmax(-1), 1, generator=generator)[:, 0]
    return functional.cross_entropy(flat, wanted, reduction="sum")


def _fitting(labels: Any, shape: tuple[int, int]) -> Tensor | None:
    """Labels as class numbers where there is one for each row of scores, else None."""
    import torch

    values = np.asarray(labels).reshape(-1) if labels is not None else np.empty(0)
    if values.shape != shape[:1] or values.dtype.kind not in "iub" or values.size == 0:
        return None
    if values.min() < 0 or values.max() >= shape[1]:
        return None
    return torch.from_numpy(values.astype(np.int64))
