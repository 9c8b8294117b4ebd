"""Hidden states as a part of what a student learns: layers of it paired with layers of its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

# A constant hidden state would ask for any weight.
_LEAST_SPREAD = 1e-6


@dataclass(slots=True)
class Hidden:
    """``pairs``: names of a student's layer and of the teacher's whose outputs should be alike.

    Where their widths differ a linear projection of the student's learns along, one a pair.
    """

    teacher: nn.Module
    pairs: tuple[tuple[str, str], ...]
    projections: list[nn.Module] = field(default_factory=list)
    _mine: dict[str, Tensor] = field(default_factory=dict)
    _theirs: dict[str, Tensor] = field(default_factory=dict)
    _attached: Any = None

    def prepare(self, student: nn.Module, call: Callable[[nn.Module], object]) -> None:
        """Make the projections; ``call`` runs a module on two samples."""
        import torch
        from torch import nn

        self.attach(student)
        with torch.no_grad():
            call(student)
            call(self.teacher)
        torch.manual_seed(0)
        self.projections = [
            nn.Identity() if self._width(a, self._mine) == self._width(b, self._theirs) else
            nn.Linear(self._width(a, self._mine), self._width(b, self._theirs))
            for a, b in self.pairs
        ]  # fmt: skip

    def attach(self, student: nn.Module) -> None:
        """Have both networks leave what their layers answer."""
        if self._attached is student:
            return
        layers, taught = dict(student.named_modules()), dict(self.teacher.named_modules())
        for mine, theirs in self.pairs:
            layers[mine].register_forward_hook(_keeper(self._mine, mine))
            taught[theirs].register_forward_hook(_keeper(self._theirs, theirs))
        self._attached = student

    def distance(self, run_teacher: Callable[[nn.Module], object]) -> Tensor:
        """The mean over pairs of the squared difference over the teacher's variance, after both have run."""
        import torch

        with torch.no_grad():
            run_teacher(self.teacher)
        parts = []
        for (a, b), projection in zip(self.pairs, self.projections, strict=True):
            mine, theirs = _last(self._mine[a]), _last(self._theirs[b])
            parts.append(((projection(mine) - theirs) ** 2).mean() / theirs.var().clamp(min=_LEAST_SPREAD))
        return torch.stack(parts).mean()

    def _width(self, name: str, kept: dict[str, Tensor]) -> int:
        return int(_last(kept[name]).shape[-1])


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, given: Any, answer: Any) -> None:
        kept[name] = answer[0] if isinstance(answer, tuple) else answer

    return keep


def _last(value: Tensor) -> Tensor:
    """Channels last: of images they come second."""
    return value.movedim(1, -1) if value.ndim == 4 else value
