"""Short training of a changed network towards the one it came from, within epochs and a time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autopilot.data import Split
    from autopilot.torch_model.calling import Call

# The softening of Hinton et al. 2015 that worked across models; CE and KD weigh the same.
TEMPERATURE = 4.0
BATCH = 128
# Enough for the mean and variance of any layer; more changed nothing (EagleEye, Li et al. 2020, uses as many).
SETTLING_SAMPLES = 1024
_CLIP = 5.0
# Share of the time by which a training may lag behind its steps before the clock sets the learning rate.
_LATE = 0.1
_SEED = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """At most ``epochs`` over the data and ``seconds``; the rate falls along a cosine to whichever ends first."""

    epochs: int
    seconds: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Trainer:
    """Trains on ``split`` (its labels where it has any), calling networks as ``call`` says.

    ``classes``: answers are scores of classes over the last axis. ``output``: the one that is compared.
    ``train``: int64, the samples that ``fit`` trains with; None for all.
    """

    split: Split
    call: Call
    classes: bool
    output: str
    train: npt.NDArray[np.int64] | None = None

    def answer(self, module: nn.Module, indices: Any) -> Tensor:
        """The compared output for some samples."""
        return self.respond(module, *self.call.arguments(self.split.feed(indices)))

    def respond(self, module: nn.Module, plain: Sequence[Tensor], keywords: Mapping[str, Tensor]) -> Tensor:
        """The compared output for inputs as ``Call.arguments`` gives them."""
        from autopilot.torch_model.calling import named_outputs

        return named_outputs(module(*plain, **keywords))[self.output]

    def shapes(self, module: nn.Module) -> dict[str, tuple[int, ...]]:
        """The shapes of all outputs for two samples."""
        import torch

        from autopilot.torch_model.calling import named_outputs

        plain, keywords = self.call.arguments(self.split.feed([0, 1]))
        with torch.no_grad():
            return {name: tuple(v.shape) for name, v in named_outputs(module(*plain, **keywords)).items()}

    def batches(self, order: npt.NDArray[np.int64]) -> Iterator[list[int]]:
        """``order`` in batches; a last one of less than two samples is left out, which batch norms can't take."""
        for start in range(0, len(order), BATCH):
            if len(chosen := order[start : start + BATCH]) > 1:
                yield [int(i) for i in chosen]

    def answers(self, module: nn.Module, samples: int | None = None) -> Tensor:
        """The compared output for the first ``samples`` (default: all), in order, without gradients."""
        count = self.split.n if samples is None else min(samples, self.split.n)
        return self.answers_to(module, np.arange(count))

    def answers_to(self, module: nn.Module, indices: npt.NDArray[np.int64]) -> Tensor:
        """The compared output for ``indices``, in that order, without gradients and in evaluation mode."""
        import torch

        was_training = module.training
        module.eval()
        with torch.no_grad():
            parts = [
                self.answer(module, [int(i) for i in indices[start : start + BATCH]])
                for start in range(0, len(indices), BATCH)
            ]
        module.train(was_training)
        return torch.cat(parts)

    def labels(self, indices: Any) -> Tensor | None:
        """Labels of classes as int64, or targets of a regression; None where there are none, or they are text."""
        import torch

        if self.split.labels is None:
            return None
        values = np.array(self.split.labels[indices])
        if values.dtype.kind not in "iubf":
            return None
        return torch.from_numpy(values if values.dtype.kind == "f" else values.astype(np.int64))

    def settle(self, module: nn.Module) -> None:
        """Estimate batch-norm statistics anew: after pruning the old ones are of other channels."""
        import torch
        from torch import nn

        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over all batches
            norm.train()
        with torch.no_grad():
            for batch in self.batches(np.arange(min(self.split.n, SETTLING_SAMPLES))):
                self.answer(module, batch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()

    def gradients(self, module: nn.Module, samples: int = 512) -> None:
        """Leave in every parameter the gradient of the loss over the first samples."""
        from torch.nn import functional

        module.zero_grad()
        for batch in self.batches(np.arange(min(self.split.n, samples))):
            scores = self.answer(module, batch)
            labels = self.labels(batch)
            if self.classes and labels is not None and _fits_classes(scores, labels):
                loss = functional.cross_entropy(scores, labels)
            elif self.classes:  # without labels: its own answer, which costs the least to keep
                loss = functional.cross_entropy(scores.flatten(0, -2), scores.argmax(-1).flatten())
            else:
                loss = (scores.float() ** 2).mean()
            loss.backward()

    def fit(
        self, module: nn.Module, targets: Tensor, schedule: Schedule, tell: Callable[[str], None] = lambda text: None
    ) -> int:
        """Train ``module`` in place towards ``targets`` (the teacher's answers); the number of steps taken."""
        import torch

        torch.manual_seed(_SEED)
        rng = np.random.default_rng(_SEED)
        optimizer = torch.optim.AdamW(module.parameters(), lr=schedule.learning_rate, weight_decay=1e-4)
        begun, steps = time.monotonic(), 0
        chosen = np.arange(self.split.n) if self.train is None else self.train
        total = max(1, schedule.epochs * math.ceil(len(chosen) / BATCH))
        module.train()
        for epoch in range(schedule.epochs):
            last = 0.0
            for batch in self.batches(rng.permutation(chosen)):
                spent = (time.monotonic() - begun) / schedule.seconds
                if spent >= 1.0:
                    module.eval()
                    return steps
                for group in optimizer.param_groups:
                    group["lr"] = schedule.learning_rate * rate(_progress(steps / total, spent))
                loss = self.loss(self.answer(module, batch), targets[batch], self.labels(batch))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), _CLIP)
                optimizer.step()
                steps, last = steps + 1, float(loss.detach())
            tell(f"epoch {epoch + 1} of {schedule.epochs}: loss {last:.4g}, {time.monotonic() - begun:.0f} s")
        module.eval()
        return steps

    def loss(self, scores: Tensor, taught: Tensor, labels: Tensor | None) -> Tensor:
        """Distance to what the teacher said, and to the labels where they are classes."""
        from torch.nn import functional

        if not self.classes:
            return functional.mse_loss(scores, taught)
        width = scores.shape[-1]
        soft = functional.log_softmax(scores.reshape(-1, width) / TEMPERATURE, -1)
        aim = functional.softmax(taught.reshape(-1, width) / TEMPERATURE, -1)
        distance = functional.kl_div(soft, aim, reduction="batchmean") * TEMPERATURE**2
        if labels is None or not _fits_classes(scores, labels):
            return distance
        return 0.5 * distance + 0.5 * functional.cross_entropy(scores, labels)


def _fits_classes(scores: Tensor, labels: Tensor) -> bool:
    """Whether labels are one class a sample of two-dimensional scores."""
    if scores.ndim != 2 or labels.ndim != 1 or labels.is_floating_point():
        return False
    return bool((labels >= 0).all() and (labels < scores.shape[1]).all())


def _progress(steps: float, spent: float) -> float:
    """How far the training is, both as shares: by steps, unless the time runs out well before them.

    Going by the clock alone would give other weights each time.
    """
    return spent if spent > steps + _LATE else steps


def rate(progress: float) -> float:
    """The share of the full learning rate: a short rise, then a cosine to zero.

    >>> [round(rate(p), 2) for p in (0.0, 0.05, 0.525, 1.0)]
    [0.1, 1.0, 0.5, 0.0]
    """
    warm = 0.05
    if progress < warm:
        return 0.1 + 0.9 * progress / warm
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - warm) / (1.0 - warm))))
