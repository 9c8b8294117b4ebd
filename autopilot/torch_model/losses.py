"""What a student is trained for: to answer as its teacher does, with labels or without.

Every function takes ``scores`` (the student's) and ``taught`` (the teacher's), float, shape (n, classes), and
``labels``, int64, shape (n,), or None; each gives one figure, the mean over samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The softening of Hinton et al. 2015 that worked across models.
TEMPERATURE = 4.0
# Weights of the authors' code for CIFAR: the target's part as it is, the others' eight times.
_DKD_TARGET, _DKD_OTHERS = 1.0, 8.0
# Small enough to keep a constant row from dividing by nothing.
_TINY = 1e-8


def kd(scores: Tensor, taught: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Kullback-Leibler divergence of softened answers times the squared temperature (Hinton et al. 2015)."""
    from torch.nn import functional

    soft = functional.log_softmax(scores / temperature, -1)
    aim = functional.log_softmax(taught / temperature, -1)
    return functional.kl_div(soft, aim, reduction="batchmean", log_target=True) * temperature**2


def ce_kd(scores: Tensor, taught: Tensor, labels: Tensor | None) -> Tensor:
    """Cross-entropy and ``kd``, half and half; without labels ``kd`` alone."""
    from torch.nn import functional

    distance = kd(scores, taught)
    return distance if labels is None else 0.5 * distance + 0.5 * functional.cross_entropy(scores, labels)


def dkd(scores: Tensor, taught: Tensor, labels: Tensor | None) -> Tensor:
    """Decoupled distillation (Zhao et al. 2022): how likely the target is, and how the others share the rest.

    Without labels the target is the teacher's first choice.
    """
    import torch
    from torch.nn import functional

    target = taught.argmax(-1) if labels is None else labels
    is_target = functional.one_hot(target, scores.shape[-1]).bool()
    soft = functional.log_softmax(scores / TEMPERATURE, -1)
    aim = functional.log_softmax(taught / TEMPERATURE, -1)

    def pair(logs: Tensor) -> Tensor:
        own, rest = logs[is_target], logs.masked_fill(is_target, -torch.inf).logsumexp(-1)
        return torch.stack([own, rest], -1)

    def others(values: Tensor) -> Tensor:
        n, classes = values.shape
        return functional.log_softmax(values[~is_target].reshape(n, classes - 1) / TEMPERATURE, -1)

    target_part = functional.kl_div(pair(soft), pair(aim), reduction="batchmean", log_target=True)
    others_part = functional.kl_div(others(scores), others(taught), reduction="batchmean", log_target=True)
    distance = (_DKD_TARGET * target_part + _DKD_OTHERS * others_part) * TEMPERATURE**2
    return distance if labels is None else functional.cross_entropy(scores, labels) + distance


def dist(scores: Tensor, taught: Tensor, labels: Tensor | None) -> Tensor:
    """Correlation instead of equality (Huang et al. 2022): of each sample's classes, and of each class's samples."""
    from torch.nn import functional

    mine, theirs = functional.softmax(scores, -1), functional.softmax(taught, -1)
    distance = 2.0 * _apart(mine, theirs) + 2.0 * _apart(mine.T, theirs.T)
    return distance if labels is None else functional.cross_entropy(scores, labels) + distance


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """One minus Pearson's correlation of rows, shape (n, m), their mean."""
    from torch.nn import functional

    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return 1.0 - functional.cosine_similarity(a, b, dim=-1, eps=_TINY).mean()


def mse(scores: Tensor, taught: Tensor, labels: Tensor | None) -> Tensor:
    """Mean squared difference from the teacher's answers: what fits outputs that are no scores of classes."""
    from torch.nn import functional

    return functional.mse_loss(scores, taught)


Loss = Callable[["Tensor", "Tensor", "Tensor | None"], "Tensor"]
LOSSES: Mapping[str, Loss] = {"ce_kd": ce_kd, "dkd": dkd, "dist": dist}


def fits_classes(scores: Tensor, labels: Tensor | None) -> bool:
    """Whether labels are one class a sample of two-dimensional scores."""
    if labels is None or scores.ndim != 2 or labels.ndim != 1 or labels.is_floating_point():
        return False
    return bool((labels >= 0).all() and (labels < scores.shape[1]).all())
