"""Pruned copies of one module, group by group, and how far each one's answers move."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autopilot.torch_model.prune import Plan, Pruner


@dataclass(frozen=True, slots=True)
class Known:
    """What holds for every copy: ``groups`` of layers by the first one's name, ``gradients`` by parameter."""

    groups: Mapping[str, set[str]]
    gradients: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Trials:
    """Copies of ``module`` as ``plan`` cuts them, compared with its own ``reference`` answers and output ``shapes``."""

    pruner: Pruner
    module: nn.Module
    plan: Plan
    known: Known
    reference: Tensor
    shapes: Any

    @property
    def groups(self) -> tuple[str, ...]:
        """The first layer's name of each group of channels that go together."""
        return tuple(self.known.groups)

    def width(self, group: str) -> int:
        """How many channels a group has."""
        layer: Any = self.module.get_submodule(group)
        return int(getattr(layer, "out_channels", None) or layer.out_features)

    def cut(self, ratios: Mapping[str, float]) -> nn.Module | None:
        """A copy with these shares of its groups' channels gone and its statistics settled.

        None where that breaks the network (a fixed size somewhere: an attention's heads, a reshape), changes its
        outputs or removes nothing.
        """
        trial = copy.deepcopy(self.module)
        before = parameters(trial)
        try:
            self.pruner.step(trial, self.plan, ratios, self.known)
            same_shapes = self.pruner.shapes(trial) == self.shapes
            self.pruner.settle(trial)
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, KeyError):
            return None
        trial.zero_grad(set_to_none=True)
        return trial if same_shapes and parameters(trial) < before else None

    def divergence(self, trial: nn.Module) -> float | None:
        """The mean squared change of the answers over their own variance; None where they are no numbers."""
        import torch

        spread = max(float(self.reference.float().var()), 1e-12)
        got = self.pruner.answers(trial)
        return float(((got - self.reference) ** 2).mean()) / spread if bool(torch.isfinite(got).all()) else None


def parameters(module: nn.Module) -> int:
    """The number of a module's trainable values."""
    return sum(int(p.numel()) for p in module.parameters())
