"""How much a network's loss feels that a unit is taken away: gradients on masks, a request at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import Unsupported

if TYPE_CHECKING:
    from torch import Tensor

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


@dataclass(slots=True)
class Tap:
    """One mask, shape (width,), and what it was last applied to, with its gradient."""

    mask: Tensor
    applied: Any = None

    def keep(self, layer: Any, given: Any, applied: Tensor) -> None:
        """A forward hook: remember ``applied`` where gradients are asked for."""
        import torch

        if torch.is_grad_enabled():
            applied.requires_grad_()
            applied.retain_grad()
            self.applied = applied


@dataclass(frozen=True, slots=True)
class Masked:
    """A network with masks: a tap each; ``output`` names what is scored."""

    converted: Converted
    taps: tuple[Tap, ...]
    output: str

    @classmethod
    def of(cls, converted: Converted, masks: Sequence[str], output: str, threads: int) -> Masked:
        """``converted`` with taps on what the parameters called ``masks`` multiply; its weights are frozen.

        Raises:
            Unsupported: a mask was lost in the conversion.
        """
        import torch

        torch.set_num_threads(threads)
        module = converted.module
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        taps = tuple(_tap(module, name) for name in masks)
        module.recompile()
        return cls(converted, taps, output)

    def put_on(self, masks: Sequence[Array]) -> None:
        """Set the masks, shape (width,) each."""
        import torch

        for tap, mask in zip(self.taps, masks, strict=True):
            tap.mask.copy_(torch.from_numpy(mask))

    def answers(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name."""
        import torch

        with torch.no_grad():
            return {name: value.numpy() for name, value in self.converted.outputs(feed).items()}

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


def _tap(module: Any, name: str) -> Tap:
    """Have what the parameter called ``name`` multiplies pass through a layer that remembers it."""
    from torch import nn

    tap = Tap(getattr(module, name, None))
    for node in list(module.graph.nodes):
        masks = [a for a in node.args if getattr(a, "op", "") == "get_attr" and a.target == name]
        if node.op == "call_function" and masks:
            layer = nn.Identity()
            layer.register_forward_hook(tap.keep)
            module.add_submodule(f"{name}_tap", layer)
            with module.graph.inserting_after(node):
                passed = module.graph.call_module(f"{name}_tap", (node,))
            for user in list(node.users):
                if user is not passed:
                    user.replace_input_with(node, passed)
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
