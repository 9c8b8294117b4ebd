"""Distillation in rungs: short trainings first, longer ones continued from where the shorter ended.

Rung 0 is one epoch, and each further one doubles the total. A rung has a learning-rate cosine of its own and begins
with the best weights of the one before, so that what a rung gives doesn't depend on which rungs were asked for, nor
on how often the work was interrupted: everything drawn follows the rung and the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.errors import Failure, VariantFailed
from autopilot.torch_model import records
from autopilot.torch_model.hidden import Hidden
from autopilot.torch_model.lesson import SEED, Lesson, Plan, Teaching
from autopilot.torch_model.rungs import Checkpoints, Learning, State, epochs_of
from autopilot.torch_model.train import Trainer, rate

if TYPE_CHECKING:
    from torch import nn

# The longest training is 2**HIGHEST epochs.
HIGHEST = 5
# What exporting and checking the student takes at the end of a training.
RESERVE_S = 8.0
# Epochs without a better score, as a share of a rung's, after which it ends; the last ones gain most.
_PATIENCE = 0.5
_CLIP, _DECAY = 1.0, 1e-2
# In seconds; a kill between epochs of large data loses no more than this.
_SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to, on the held-out samples (NaN without any).

    ``score``: of the weights that were kept. ``tried``: the best of any epoch. ``changed``: whether the weights that
    were kept are others than before.
    """

    score: float
    tried: float
    changed: bool


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

    @property
    def teaching(self) -> Teaching:
        """How students are scored, and what they learn from."""
        return Teaching(self.trainer, self.lesson, self.plan, self.teacher)

    def train(self, module: nn.Module, effort: int, hidden: Hidden | None = None) -> Trained:
        """Train ``module`` in place up to rung ``effort``.

        Raises:
            VariantFailed: TIMEOUT where the time ends before: the checkpoint is there for the next time.
        """
        given = records.weights_of(module)
        begin, state = Checkpoints(self.checkpoints).last(effort)
        if state.done:
            records.give_weights(module, state.best)
        for rung in range(begin, effort + 1):
            state = self._rung(module, rung, state, hidden)
        module.eval()
        score, tried = (value if math.isfinite(value) else math.nan for value in (state.score, state.tried))
        return Trained(score, tried, changed=not records.holds(module, given))

    # ---- rungs -----------------------------------------------------------------------------------

    def _rung(self, module: nn.Module, rung: int, before: State, hidden: Hidden | None) -> State:
        """Train through one rung from where ``module`` is, or where this rung was left; leaves the best weights."""
        import torch

        files, epochs, each = Checkpoints(self.checkpoints), epochs_of(rung), self.lesson.steps(self.plan.batch)
        along = hidden.projections if hidden is not None else []
        tensors = [*module.parameters(), *(p for layer in along for p in layer.parameters())]
        optimizer = torch.optim.AdamW(tensors, lr=self.plan.learning_rate, weight_decay=_DECAY)
        learning = Learning(tensors, optimizer)
        state = files.resume(rung, module, learning) or self._begin(module, rung, before)
        begun, first, saved, seen = time.monotonic(), state.step, time.monotonic(), 0.0
        while state.step < epochs * each and state.waited <= max(1.0, _PATIENCE * epochs):
            if self.left_s() < RESERVE_S:
                files.save(rung, module, state, learning)
                raise _out_of_time(rung, state.step / each, epochs)
            for group in optimizer.param_groups:
                group["lr"] = self.plan.learning_rate * rate(state.step / (epochs * each))
            seen = self._step(module, rung, state.step, learning, hidden)
            state.step += 1
            if state.step % each == 0:
                self._judge(module, state)
                pace_s = (time.monotonic() - begun) / (state.step - first)
                self._report(rung, state, seen, pace_s * (epochs * each - state.step))
            if state.step % each == 0 or time.monotonic() - saved > _SAVE_EVERY_S:
                files.save(rung, module, state, learning)
                saved = time.monotonic()
        records.give_weights(module, state.best)
        state.done = True
        files.save(rung, module, state, learning)
        return state

    def _begin(self, module: nn.Module, rung: int, before: State) -> State:
        """What training starts from is the best so far: of the rung before, or untrained."""
        score = before.score
        if rung == 0:
            score = self.teaching.score(module)
            score = score if math.isfinite(score) else -math.inf
        return State(score=score, best=records.weights_of(module), tried=before.tried)

    def _judge(self, module: nn.Module, state: State) -> None:
        """After an epoch: keep the weights if they are at least as good."""
        score = self.teaching.score(module)
        if not score < state.score:  # NaN, where nothing is held out: the last ones are the best known
            state.best, state.waited = records.weights_of(module), 0
            state.score = score if math.isfinite(score) else state.score
        else:
            state.waited += 1
        state.tried = max(state.tried, score) if math.isfinite(score) else state.tried

    def _report(self, rung: int, state: State, loss: float, left_s: float) -> None:
        epoch, epochs = state.step // self.lesson.steps(self.plan.batch), epochs_of(rung)
        quality = f", held-out {state.score:.2%}" if math.isfinite(state.score) else ""
        told = f", teacher {self.teaching.teacher_score():.2%}" if quality else ""
        self.tell(
            f"effort {rung}: epoch {epoch} of {epochs}, loss {loss:.4g}{quality}{told}, about {left_s:.0f} s left"
        )

    def _step(self, module: nn.Module, rung: int, step: int, learning: Learning, hidden: Hidden | None) -> float:
        import torch

        torch.manual_seed(SEED + 1_000_003 * rung + step)  # of dropout
        batch = self.lesson.batch(self.plan.batch, rung, step)
        module.train()
        if hidden is not None:
            hidden.attach(module)
        loss = self.teaching.loss(module, rung, step, batch)
        if hidden is not None:
            loss = loss + self.plan.hidden * hidden.distance(lambda teacher: self.trainer.answer(teacher, batch))
        optimizer = learning.optimizer
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], _CLIP)
        optimizer.step()
        return float(loss.detach())


def _out_of_time(rung: int, epoch: float, epochs: int) -> VariantFailed:
    return VariantFailed(
        Failure.TIMEOUT,
        f"the time was up after {epoch:.1f} of {epochs} epochs at effort {rung}; a checkpoint is kept.",
        "Run the study again: the training goes on from there. Or give it more time, or allow less effort.",
    )
