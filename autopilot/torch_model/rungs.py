"""Where a training in rungs stands, and the files that it goes on from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.torch_model import records

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(slots=True)
class State:
    """Where a rung is: ``best`` are weights by name, ``score`` theirs on the held-out samples, ``waited`` epochs.

    ``tried``: the best score of any epoch so far, of the rungs before too, whether its weights were kept or not.
    """

    step: int = 0
    score: float = -math.inf
    waited: int = 0
    done: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)
    tried: float = -math.inf


@dataclass(frozen=True, slots=True)
class Learning:
    """What a step changes: ``tensors``, the module's and those that learn along, and the ``optimizer``'s moments."""

    tensors: list[Tensor]
    optimizer: Any


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """One file a rung: ``path`` with the rung added to its name."""

    path: Path

    def of(self, rung: int) -> Path:
        """The file of one rung."""
        return self.path.with_name(f"{self.path.name}-{rung}.safetensors")

    def last(self, effort: int) -> tuple[int, State]:
        """The first rung that isn't done, and the state of the one before it."""
        for rung in range(effort, -1, -1):
            found = _load(self.of(rung))
            if found is not None and found[1].done:
                return rung + 1, found[1]
        return 0, State()

    def save(self, rung: int, module: nn.Module, state: State, learning: Learning) -> None:
        """Keep where ``rung`` is; of one that is done its best weights alone."""
        kept = {f"best/{name}": value for name, value in state.best.items()}
        if not state.done:
            kept |= {f"last/{name}": value for name, value in records.weights_of(module).items()}
            own = {id(p) for p in module.parameters()}
            kept |= {f"tensor/{i}": value for i, value in enumerate(learning.tensors) if id(value) not in own}
            for i, value in enumerate(learning.tensors):
                moments = learning.optimizer.state.get(value, {})
                kept |= {f"optimizer/{i}/{k}": v for k, v in moments.items()}
        kept = {name: value.detach().contiguous().clone() for name, value in kept.items()}
        told = {"step": state.step, "waited": state.waited, "done": state.done}
        records.save(self.of(rung), kept, told | {"score": _finite(state.score), "tried": _finite(state.tried)})

    def resume(self, rung: int, module: nn.Module, learning: Learning) -> State | None:
        """Put module and optimizer where ``rung`` was left; None where it wasn't begun."""
        import torch

        found = _load(self.of(rung))
        if found is None or found[1].done:
            return None
        kept, state = found
        records.give_weights(module, dict(_under("last/", kept)))
        with torch.no_grad():
            for i, value in enumerate(learning.tensors):
                if f"tensor/{i}" in kept:  # a projection, which isn't the module's
                    value.copy_(kept[f"tensor/{i}"])
                moments = dict(_under(f"optimizer/{i}/", kept))
                if moments:
                    learning.optimizer.state[value] = moments
        return state


def epochs_of(rung: int) -> int:
    """Epochs of one rung: with the ones before it twice as many as those.

    >>> [epochs_of(r) for r in range(5)]
    [1, 1, 2, 4, 8]
    """
    return 1 if rung == 0 else 2 ** (rung - 1)


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _under(prefix: str, kept: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), value) for name, value in kept.items() if name.startswith(prefix))


def _load(path: Path) -> tuple[dict[str, Tensor], State] | None:
    """A checkpoint; None where there is none, or it is damaged: then its rung is trained again."""
    try:
        kept, told = records.load(path)
    except (FileNotFoundError, ValueError):
        return None
    score, tried = (-math.inf if told.get(name) is None else float(told[name]) for name in ("score", "tried"))
    best = dict(_under("best/", kept))
    return kept, State(int(told["step"]), score, int(told["waited"]), bool(told["done"]), best, tried)
