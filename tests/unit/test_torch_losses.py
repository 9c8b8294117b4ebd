"""Losses of distillation against their papers' formulas, written out for numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from autopilot.torch_model import losses  # noqa: E402

Floats = npt.NDArray[np.float64]
SEEDS = st.integers(0, 10_000)


def drawn(seed: int, n: int = 6, classes: int = 5) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """A student's scores, a teacher's, and labels."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (n, classes)), rng.normal(0, 3, (n, classes)), rng.integers(0, classes, n)


def softmax(x: Floats) -> Floats:
    e = np.exp(x - x.max(-1, keepdims=True))
    found: Floats = e / e.sum(-1, keepdims=True)
    return found


def divergence(p: Floats, q: Floats) -> float:
    """Of ``q`` from ``p``, summed over classes, the mean over samples."""
    return float((p * (np.log(p) - np.log(q))).sum(-1).mean())


def value(name: str, scores: Floats, taught: Floats, labels: npt.NDArray[np.int64] | None) -> float:
    given = None if labels is None else torch.from_numpy(labels)
    return float(losses.LOSSES[name](torch.from_numpy(scores), torch.from_numpy(taught), given))


def cross_entropy(scores: Floats, labels: npt.NDArray[np.int64]) -> float:
    return float(-np.log(softmax(scores)[np.arange(len(labels)), labels]).mean())


@settings(max_examples=20)
@given(SEEDS)
def test_ce_kd_is_half_of_each(seed: int) -> None:
    """Hinton's softened divergence, scaled back by the squared temperature, beside cross-entropy."""
    scores, taught, labels = drawn(seed)
    apart = 16.0 * divergence(softmax(taught / 4), softmax(scores / 4))

    assert value("ce_kd", scores, taught, labels) == pytest.approx(0.5 * apart + 0.5 * cross_entropy(scores, labels))
    assert value("ce_kd", scores, taught, None) == pytest.approx(apart)


@settings(max_examples=20)
@given(SEEDS)
def test_dkd_takes_target_and_others_apart(seed: int) -> None:
    """The divergence of (target, rest), and eight times that among the others."""
    scores, taught, labels = drawn(seed)
    rows = np.arange(len(labels))
    p, q = softmax(taught / 4), softmax(scores / 4)
    pair_p = np.stack([p[rows, labels], 1 - p[rows, labels]], -1)
    pair_q = np.stack([q[rows, labels], 1 - q[rows, labels]], -1)
    others = np.ones_like(p, bool)
    others[rows, labels] = False
    rest_p = softmax(taught[others].reshape(len(labels), -1) / 4)
    rest_q = softmax(scores[others].reshape(len(labels), -1) / 4)
    wanted = 16.0 * (divergence(pair_p, pair_q) + 8.0 * divergence(rest_p, rest_q))

    assert value("dkd", scores, taught, labels) == pytest.approx(wanted + cross_entropy(scores, labels), rel=1e-4)


@settings(max_examples=20)
@given(SEEDS)
def test_dist_correlates_rows_and_columns(seed: int) -> None:
    """One minus Pearson's correlation, of samples and of classes, each twice."""
    scores, taught, _ = drawn(seed)
    p, q = softmax(taught), softmax(scores)
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])

    assert value("dist", scores, taught, None) == pytest.approx(2 * (1 - rows) + 2 * (1 - columns), abs=1e-4)


@given(SEEDS, st.sampled_from(sorted(losses.LOSSES)))
def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn(seed: int, name: str) -> None:
    """Without labels every loss is smallest, and nothing, at the teacher's own answers."""
    scores, taught, _ = drawn(seed)

    assert value(name, taught, taught, None) == pytest.approx(0.0, abs=1e-6)
    assert value(name, scores, taught, None) > 0.0


def test_labels_that_are_no_classes_are_not_used() -> None:
    """Regression targets, and classes beyond the scores, are left alone."""
    scores = torch.zeros(3, 4)

    assert losses.fits_classes(scores, torch.tensor([0, 1, 3]))
    assert not losses.fits_classes(scores, torch.tensor([0, 1, 4]))
    assert not losses.fits_classes(scores, torch.tensor([0.0, 1.0, 2.0]))
    assert not losses.fits_classes(scores, None)
