"""Answers in runs of different sizes: rounding passes, garbage doesn't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.bench.agreement import FAR, FirstRuns, check_agreement, distance
from autopilot.errors import Failure, VariantFailed

LOGITS = np.random.default_rng(0).standard_normal((32, 10)).astype(np.float32)


@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3), st.integers(0, 99))
def test_rounding_is_near_and_other_answers_are_far_on_every_scale(scale: float, offset: float, seed: int) -> None:
    """What bfloat16 rounds (0.4% of each value) passes, whatever is added to all; answers to other samples don't."""
    rng = np.random.default_rng(seed)
    values = (LOGITS.astype(np.float64) + offset) * scale

    assert distance(values * (1 + 0.004 * rng.uniform(-1, 1, values.shape)), values) <= FAR
    assert distance(LOGITS[::-1], LOGITS) > 1


@pytest.mark.parametrize("wrong", [LOGITS * 1e10, LOGITS * 0, LOGITS * 2, np.full_like(LOGITS, np.nan)])
def test_garbage_is_refused_with_both_sizes(wrong: np.ndarray) -> None:
    """Scales that are off, nothing at all, no numbers."""
    with pytest.raises(VariantFailed, match=r"'y' in runs of 1 samples isn't what runs of 4") as failed:
        check_agreement({"y": wrong}, {"y": LOGITS}, (1, 4))

    assert failed.value.failure is Failure.WRONG_NUMERICS


@pytest.mark.parametrize(
    "same",
    [
        np.where(LOGITS > 1, -np.inf, LOGITS),
        np.full((32, 2), np.nan),
        np.zeros((32, 2)),
        np.full((32, 2), 7.0),
        np.arange(32),
        np.array(["a"] * 32),
    ],
)
def test_equal_answers_agree_whatever_they_are(same: np.ndarray) -> None:
    """Masks of infinity, constants, whole numbers and text too."""
    check_agreement({"y": same}, {"y": same.copy()}, (1, 4))


def test_few_labels_that_flip_are_no_garbage_but_most_of_them_are() -> None:
    """A near tie falls otherwise with a rounding."""
    labels = np.arange(32) % 10
    flipped = labels.copy()
    flipped[:3] += 1

    check_agreement({"y": flipped}, {"y": labels}, (1, 4))
    with pytest.raises(VariantFailed):
        check_agreement({"y": labels + 1}, {"y": labels}, (1, 4))


def test_first_runs_are_compared_on_the_samples_of_both() -> None:
    """Sizes rise in one instance, then in the next; what doesn't follow the samples is left out."""
    runs = FirstRuns(("y", "state"))
    for size in (1, 2, 3, 1, 2, 3):
        runs.add(size, [LOGITS[:size], LOGITS[5]])

    with pytest.raises(VariantFailed, match="runs of 4 samples isn't what runs of 3 give"):
        runs.add(4, [LOGITS[4:8], LOGITS[5]])
