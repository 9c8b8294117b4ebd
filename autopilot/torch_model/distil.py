"""Distillation in rungs: short trainings first, longer ones continued from where the shorter ended.

Rung 0 is one epoch, and each further one doubles the total. A rung has a learning-rate cosine of its own and begins
with the best weights of the one before, so that what a rung gives doesn't depend on which rungs were asked for, nor
on how often the work was interrupted: everything drawn follows the rung and the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autopilot.errors import Failure, VariantFailed
from autopilot.torch_model import records
from autopilot.torch_model.hidden import Hidden
from autopilot.torch_model.losses import LOSSES, Loss, fits_classes, mse
from autopilot.torch_model.train import Trainer, rate

if TYPE_CHECKING:
    from torch import Tensor, nn

# The longest training is 2**HIGHEST epochs.
HIGHEST = 5
# So many samples are an epoch at most: the first rung of large data has to be short too.
LARGEST_EPOCH = 20_000
# What exporting and checking the student takes at the end of a training.
RESERVE_S = 8.0
# Epochs without a better score, as a share of a rung's, after which it ends; the last ones gain most.
_PATIENCE = 0.5
_CLIP, _DECAY = 1.0, 1e-2
# In seconds; a kill between epochs of large data loses no more than this.
_SAVE_EVERY_S = 60.0
_SEED = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """``loss`` is a name of ``losses.LOSSES``; ``batch`` in samples; ``hidden`` the weight of hidden states.

    ``mixup``: the Beta distribution's parameter for mixing samples; 0 for none.
    """

    loss: str
    learning_rate: float
    batch: int
    hidden: float = 0.0
    mixup: float = 0.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """``taught``: the teacher's answers to all training samples, shape (n, …); ``train``, ``held_out``: indices."""

    taught: Tensor
    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]


@dataclass(slots=True)
class _State:
    """Where a rung is: ``best`` are weights by name, ``score`` theirs on the held-out samples, ``waited`` epochs."""

    step: int = 0
    score: float = -math.inf
    waited: int = 0
    done: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Distiller:
    """Trains students on ``trainer``'s split.

    ``checkpoints``: a path to which the rung is added. ``left_s()``: seconds until all has to be over.
    ``teacher``: the module that says the answers to mixed samples; without one nothing is mixed.
    """

    trainer: Trainer
    lesson: Lesson
    plan: Plan
    checkpoints: Path
    left_s: Callable[[], float] = lambda: math.inf
    tell: Callable[[str], None] = lambda text: None
    teacher: nn.Module | None = None

    def train(self, module: nn.Module, effort: int, hidden: Hidden | None = None) -> float:
        """Train ``module`` in place up to rung ``effort``; its score on the held-out samples (NaN without any).

        Raises:
            VariantFailed: TIMEOUT where the time ends before: the checkpoint is there for the next time.
        """
        begin, state = self._known(effort)
        if state.done:
            records.give_weights(module, state.best)
        for rung in range(begin, effort + 1):
            state = self._rung(module, rung, state.score, hidden)
        module.eval()
        return state.score if math.isfinite(state.score) else math.nan

    def score(self, module: nn.Module) -> float:
        """Quality on the held-out samples: accuracy, or agreement with the teacher where there are no labels.

        Of outputs that are no scores of classes: one minus the squared distance from the teacher over its variance.
        """
        if not len(self.lesson.held_out):
            return math.nan
        return self._scored(self.trainer.answers_to(module, self.lesson.held_out))

    def teacher_score(self) -> float:
        """The teacher's own score."""
        if not len(self.lesson.held_out):
            return math.nan
        return self._scored(self.lesson.taught[self.lesson.held_out])

    def _scored(self, answers: Tensor) -> float:
        taught = self.lesson.taught[self.lesson.held_out].float()
        if not self.trainer.classes:
            spread = max(float(taught.var()), 1e-12)
            return 1.0 - float(((answers - taught) ** 2).mean()) / spread
        labels = self.trainer.labels(self.lesson.held_out)
        aim = labels if labels is not None and fits_classes(answers, labels) else taught.argmax(-1)
        return float((answers.argmax(-1) == aim).float().mean())

    # ---- rungs -----------------------------------------------------------------------------------

    def _path(self, rung: int) -> Path:
        return self.checkpoints.with_name(f"{self.checkpoints.name}-{rung}.safetensors")

    def _known(self, effort: int) -> tuple[int, _State]:
        """The first rung that isn't done, and the state of the one before it."""
        for rung in range(effort, -1, -1):
            found = _load(self._path(rung))
            if found is not None and found[1].done:
                return rung + 1, found[1]
        return 0, _State()

    def _rung(self, module: nn.Module, rung: int, score: float, hidden: Hidden | None) -> _State:
        """Train through one rung from where ``module`` is, or where this rung was left; leaves the best weights."""
        import torch

        epochs, each = epochs_of(rung), self._steps()
        learning = hidden.projections if hidden is not None else []
        tensors = [*module.parameters(), *(p for layer in learning for p in layer.parameters())]
        optimizer = torch.optim.AdamW(tensors, lr=self.plan.learning_rate, weight_decay=_DECAY)
        state = self._resume(module, rung, tensors, optimizer) or self._begin(module, rung, score)
        begun, first, saved, seen = time.monotonic(), state.step, time.monotonic(), 0.0
        while state.step < epochs * each and state.waited <= max(1.0, _PATIENCE * epochs):
            if self.left_s() < RESERVE_S:
                self._save(rung, module, state, tensors, optimizer)
                raise _out_of_time(rung, state.step / each, epochs)
            for group in optimizer.param_groups:
                group["lr"] = self.plan.learning_rate * rate(state.step / (epochs * each))
            seen = self._step(module, rung, state.step, optimizer, hidden)
            state.step += 1
            if state.step % each == 0:
                self._judge(module, state)
                pace_s = (time.monotonic() - begun) / (state.step - first)
                self._report(rung, state, seen, pace_s * (epochs * each - state.step))
            if state.step % each == 0 or time.monotonic() - saved > _SAVE_EVERY_S:
                self._save(rung, module, state, tensors, optimizer)
                saved = time.monotonic()
        records.give_weights(module, state.best)
        state.done = True
        self._save(rung, module, state, tensors, optimizer)
        return state

    def _begin(self, module: nn.Module, rung: int, score: float) -> _State:
        """What training starts from is the best so far: of the rung before, or untrained."""
        if rung == 0:
            score = self.score(module)
            score = score if math.isfinite(score) else -math.inf
        return _State(score=score, best=records.weights_of(module))

    def _judge(self, module: nn.Module, state: _State) -> None:
        """After an epoch: keep the weights if they are at least as good."""
        score = self.score(module)
        if not score < state.score:  # NaN, where nothing is held out: the last ones are the best known
            state.best, state.waited = records.weights_of(module), 0
            state.score = score if math.isfinite(score) else state.score
        else:
            state.waited += 1

    def _report(self, rung: int, state: _State, loss: float, left_s: float) -> None:
        epoch, epochs = state.step // self._steps(), epochs_of(rung)
        quality = f", held-out {state.score:.2%}" if math.isfinite(state.score) else ""
        told = f", teacher {self.teacher_score():.2%}" if quality else ""
        self.tell(
            f"effort {rung}: epoch {epoch} of {epochs}, loss {loss:.4g}{quality}{told}, about {left_s:.0f} s left"
        )

    def _step(self, module: nn.Module, rung: int, step: int, optimizer: Any, hidden: Hidden | None) -> float:
        import torch

        torch.manual_seed(_SEED + 1_000_003 * rung + step)  # of dropout
        batch = self._batch(rung, step)
        module.train()
        if hidden is not None:
            hidden.attach(module)
        loss = self._of_mixed(module, rung, step, batch) if self.plan.mixup else self._of_samples(module, batch)
        if hidden is not None:
            loss = loss + self.plan.hidden * hidden.distance(lambda teacher: self.trainer.answer(teacher, batch))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], _CLIP)
        optimizer.step()
        return float(loss.detach())

    def _of_samples(self, module: nn.Module, batch: list[int]) -> Tensor:
        scores = self.trainer.answer(module, batch)
        return self._loss(scores, self.lesson.taught[batch].float(), self.trainer.labels(batch))

    def _of_mixed(self, module: nn.Module, rung: int, step: int, batch: list[int]) -> Tensor:
        """The loss on inputs between pairs of samples, where the teacher is asked anew.

        Zhang et al. 2018 (mixup), for distillation Beyer et al. 2022 (a good teacher is patient and consistent): both
        see the very same input, and few samples make many.
        """
        import torch

        assert self.teacher is not None
        rng = np.random.default_rng([_SEED, rung, step, 1])
        share, order = float(rng.beta(self.plan.mixup, self.plan.mixup)), rng.permutation(len(batch)).tolist()
        plain, keywords = self.trainer.call.arguments(self.trainer.split.feed(batch))
        plain = tuple(_between(value, order, share) for value in plain)
        keywords = {name: _between(value, order, share) for name, value in keywords.items()}
        with torch.no_grad():
            taught = self.trainer.respond(self.teacher, plain, keywords)
        return self._loss(self.trainer.respond(module, plain, keywords), taught.float(), None)

    def _loss(self, scores: Tensor, taught: Tensor, labels: Tensor | None) -> Tensor:
        loss: Loss = LOSSES[self.plan.loss] if self.trainer.classes else mse
        if not self.trainer.classes:
            return loss(scores, taught, None)
        known = labels if labels is not None and fits_classes(scores, labels) else None
        width = scores.shape[-1]
        return loss(scores.reshape(-1, width), taught.reshape(-1, width), known)

    def _size(self) -> int:
        return min(len(self.lesson.train), LARGEST_EPOCH)

    def _steps(self) -> int:
        """Steps an epoch: a last batch of fewer than two samples is left out, which batch norms can't take."""
        full, rest = divmod(self._size(), self.plan.batch)
        return max(1, full + (rest > 1))

    def _batch(self, rung: int, step: int) -> list[int]:
        """The training samples of a step: an epoch's order follows rung and epoch."""
        epoch, at = divmod(step, self._steps())
        order = np.random.default_rng([_SEED, rung, epoch]).permutation(self.lesson.train)[: self._size()]
        return [int(i) for i in order[at * self.plan.batch : (at + 1) * self.plan.batch]]

    def _save(self, rung: int, module: nn.Module, state: _State, tensors: list[Tensor], optimizer: Any) -> None:
        kept = {f"best/{name}": value for name, value in state.best.items()}
        if not state.done:
            kept |= {f"last/{name}": value for name, value in records.weights_of(module).items()}
            own = {id(p) for p in module.parameters()}
            kept |= {f"tensor/{i}": value for i, value in enumerate(tensors) if id(value) not in own}
            for i, value in enumerate(tensors):
                kept |= {f"optimizer/{i}/{k}": v for k, v in optimizer.state.get(value, {}).items()}
        kept = {name: value.detach().contiguous().clone() for name, value in kept.items()}
        told = {"step": state.step, "waited": state.waited, "done": state.done}
        score = state.score if math.isfinite(state.score) else None
        records.save(self._path(rung), kept, told | {"score": score})

    def _resume(self, module: nn.Module, rung: int, tensors: list[Tensor], optimizer: Any) -> _State | None:
        """Put module and optimizer where this rung was left; None where it wasn't begun."""
        import torch

        found = _load(self._path(rung))
        if found is None or found[1].done:
            return None
        kept, state = found
        records.give_weights(module, dict(_under("last/", kept)))
        with torch.no_grad():
            for i, value in enumerate(tensors):
                if f"tensor/{i}" in kept:  # a projection, which isn't the module's
                    value.copy_(kept[f"tensor/{i}"])
                moments = dict(_under(f"optimizer/{i}/", kept))
                if moments:
                    optimizer.state[value] = moments
        return state


def _between(value: Tensor, order: list[int], share: float) -> Tensor:
    """Points between samples and others of the same batch; whole numbers can't be mixed, and a constant needn't be."""
    if not value.is_floating_point() or value.shape[:1] != (len(order),):
        return value
    return share * value + (1.0 - share) * value[order]


def epochs_of(rung: int) -> int:
    """Epochs of one rung: with the ones before it twice as many as those.

    >>> [epochs_of(r) for r in range(5)]
    [1, 1, 2, 4, 8]
    """
    return 1 if rung == 0 else 2 ** (rung - 1)


def _under(prefix: str, kept: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), value) for name, value in kept.items() if name.startswith(prefix))


def _load(path: Path) -> tuple[dict[str, Tensor], _State] | None:
    """A checkpoint; None where there is none, or it is damaged: then its rung is trained again."""
    try:
        kept, told = records.load(path)
    except (FileNotFoundError, ValueError):
        return None
    score = told["score"] if told["score"] is not None else -math.inf
    return kept, _State(
        int(told["step"]), float(score), int(told["waited"]), bool(told["done"]), dict(_under("best/", kept))
    )


def _out_of_time(rung: int, epoch: float, epochs: int) -> VariantFailed:
    return VariantFailed(
        Failure.TIMEOUT,
        f"the time was up after {epoch:.1f} of {epochs} epochs at effort {rung}; a checkpoint is kept.",
        "Run the study again: the training goes on from there. Or give it more time, or allow less effort.",
    )
