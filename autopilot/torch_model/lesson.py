"""What a student is taught with: samples and the teacher's answers, how its own are scored and what they cost it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autopilot.torch_model.losses import LOSSES, Loss, fits_classes, mse
from autopilot.torch_model.train import Trainer

if TYPE_CHECKING:
    from torch import Tensor, nn

# So many samples are an epoch at most: the first rung of large data has to be short too.
LARGEST_EPOCH = 20_000
SEED = 1


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

    def steps(self, batch: int) -> int:
        """Steps an epoch: a last batch of fewer than two samples is left out, which batch norms can't take."""
        full, rest = divmod(self._size, batch)
        return max(1, full + (rest > 1))

    def batch(self, batch: int, rung: int, step: int) -> list[int]:
        """The training samples of a step: an epoch's order follows rung and epoch."""
        epoch, at = divmod(step, self.steps(batch))
        order = np.random.default_rng([SEED, rung, epoch]).permutation(self.train)[: self._size]
        return [int(i) for i in order[at * batch : (at + 1) * batch]]

    @property
    def _size(self) -> int:
        return min(len(self.train), LARGEST_EPOCH)


@dataclass(frozen=True, slots=True)
class Teaching:
    """Scores and losses of networks that are taught ``lesson`` by ``plan``.

    ``teacher``: the module that says the answers to mixed samples.
    """

    trainer: Trainer
    lesson: Lesson
    plan: Plan
    teacher: nn.Module | None = None

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

    def loss(self, module: nn.Module, rung: int, step: int, batch: list[int]) -> Tensor:
        """What a step's answers cost: of its samples, or of points between them."""
        if self.plan.mixup:
            return self._of_mixed(module, rung, step, batch)
        scores = self.trainer.answer(module, batch)
        return self._loss(scores, self.lesson.taught[batch].float(), self.trainer.labels(batch))

    def _of_mixed(self, module: nn.Module, rung: int, step: int, batch: list[int]) -> Tensor:
        """The loss on inputs between pairs of samples, where the teacher is asked anew.

        Zhang et al. 2018 (mixup), for distillation Beyer et al. 2022 (a good teacher is patient and consistent): both
        see the very same input, and few samples make many.
        """
        import torch

        assert self.teacher is not None
        rng = np.random.default_rng([SEED, rung, step, 1])
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


def _between(value: Tensor, order: list[int], share: float) -> Tensor:
    """Points between samples and others of the same batch; whole numbers can't be mixed, and a constant needn't be."""
    if not value.is_floating_point() or value.shape[:1] != (len(order),):
        return value
    return share * value + (1.0 - share) * value[order]
