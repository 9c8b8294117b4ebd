"""Answers in runs of different sizes: rounding passes, garbage doesn't."""

from __future__ import annotations

from contextlib import nullcontext

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


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_grey_levels_are_quantities_and_garbage_among_them_is_refused(noise: float) -> None:
    """Most whole numbers of a picture change with a rounding, each by one."""
    rng = np.random.default_rng(0)
    exact = rng.uniform(0, 255, (4, 32, 32, 3))
    picture, again = (
        np.clip(np.round(v), 0, 255).astype(np.uint8) for v in (exact, exact + noise * rng.normal(size=exact.shape))
    )
    assert np.mean(picture != again) > 0.3

    check_agreement({"y": again}, {"y": picture}, (1, 4))
    with pytest.raises(VariantFailed):
        check_agreement({"y": rng.integers(0, 256, picture.shape, np.uint8)}, {"y": picture}, (1, 4))


def detections(noise: float, seed: int = 0) -> dict[str, np.ndarray]:
    """The best 100 of 1,000 boxes by score for 16 samples; the same scores but for ``noise``."""
    rng = np.random.default_rng(seed)
    boxes, scores = rng.uniform(0, 640, (16, 1000, 4)), rng.uniform(0, 1, (16, 1000))
    scores = scores * (1 + noise * np.random.default_rng(99).normal(size=scores.shape))
    best = np.argsort(-scores, axis=1)[:, :100]
    taken, by = np.take_along_axis(boxes, best[..., None], 1), np.take_along_axis(scores, best, 1)
    return {"boxes": taken, "scores": by, "indices": best}


@pytest.mark.parametrize("noise", [0.001, 0.004])
@pytest.mark.parametrize("scored", [None, "boxes", "scores", "indices"])
def test_rows_in_another_order_are_the_same_answers(noise: float, scored: str | None) -> None:
    """Near ties of a TopK or NMS inside the graph fall otherwise with a rounding, one output or several."""
    one, other = detections(noise), detections(0.0)
    assert distance(one["indices"], other["indices"]) > FAR

    check_agreement(one, other, (1, 4), scored)
    joined = [np.concatenate([d["boxes"], d["scores"][..., None] * 640], axis=2) for d in (one, other)]
    check_agreement({"y": joined[0]}, {"y": joined[1]}, (1, 4))


@pytest.mark.parametrize("scored", [None, "boxes"])
def test_boxes_of_other_samples_or_scales_are_refused(scored: str | None) -> None:
    """Unrelated detections are as ordered as those that are wanted; a wrong scale is no order."""
    other = detections(0.0)
    unrelated = detections(0.0, seed=1)
    for wrong in ({**other, "boxes": other["boxes"] * 1e10}, unrelated):
        if scored is None and wrong is not unrelated:
            continue  # where it isn't known what counts, one that agrees speaks for all
        kept = {n: v for n, v in wrong.items() if scored or n != "scores"}
        with pytest.raises(VariantFailed):
            check_agreement(kept, other, (1, 4), scored)


def test_only_what_is_scored_counts_where_that_is_known() -> None:
    """Garbage in the scored classes isn't excused by hidden states that agree; in others it doesn't matter."""
    wanted = {"logits": LOGITS, "hidden": LOGITS[:, ::-1]}

    check_agreement({**wanted, "hidden": LOGITS * 1e10}, wanted, (1, 4), "logits")
    for wrong in (LOGITS * 1e10, LOGITS[::-1]):
        with pytest.raises(VariantFailed, match="'logits'"):
            check_agreement({**wanted, "logits": wrong}, wanted, (1, 4), "logits")
        with pytest.raises(VariantFailed):
            check_agreement({"logits": wrong, "count": np.full(32, 9.0)}, {**wanted, "count": np.full(32, 9.0)}, (1, 4))


def test_first_runs_are_compared_on_the_samples_of_both() -> None:
    """Sizes rise in one instance, then in the next; what doesn't follow the samples is left out."""
    runs = FirstRuns(("y", "state"))
    for size in (1, 2, 3, 1, 2, 3):
        runs.add(size, [LOGITS[:size], LOGITS[5]])

    with pytest.raises(VariantFailed, match="runs of 4 samples isn't what runs of 3 give"):
        runs.add(4, [LOGITS[4:8], LOGITS[5]])


def test_first_runs_of_one_size_are_not_compared() -> None:
    """Two instances of a model that samples answer otherwise, and so does one in its next run."""
    runs = FirstRuns(("y",))

    runs.add(1, [np.arange(64.0).reshape(1, 64)])
    runs.add(1, [np.arange(64.0)[::-1].reshape(1, 64)])


@pytest.mark.parametrize(("scored", "refused"), [("", True), ("y", True), ("state", False), (None, False)])
def test_first_runs_are_compared_in_what_is_scored(scored: str | None, refused: bool) -> None:
    """Garbage there isn't excused by another output that agrees."""
    runs = FirstRuns(("y", "state"), scored)
    runs.add(8, [LOGITS[:8], LOGITS[:8]])

    with pytest.raises(VariantFailed, match="'y'") if refused else nullcontext():
        runs.add(9, [LOGITS[:9] * 1e10, LOGITS[:9]])


@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7), st.integers(0, 99))
def test_rounding_of_one_figure_a_sample_is_no_garbage_however_near_to_zero(figures: list[float], seed: int) -> None:
    """A regression or one logit: what is 0.05 of all figures' spread may be many times the first ones."""
    rng = np.random.default_rng(seed)
    runs = FirstRuns(("y",), "")
    for size in range(1, 8):
        rounded = np.array(figures[:size]) + rng.normal(scale=0.05, size=size)
        runs.add(size, [rounded.astype(np.float32).reshape(size, 1)])


@pytest.mark.parametrize("wrong", [1e10, 1e-10, np.nan])
@pytest.mark.parametrize("size", [1, 8])
def test_garbage_in_one_figure_a_sample_is_refused(size: int, wrong: float) -> None:
    """Of few figures where it is by far more or less, or none."""
    runs = FirstRuns(("y",), "")
    runs.add(size, [LOGITS[:size, :1]])

    with pytest.raises(VariantFailed, match=f"runs of {size + 1} samples isn't what runs of {size} give"):
        runs.add(size + 1, [LOGITS[: size + 1, :1] * wrong])


@pytest.mark.parametrize("few", [np.arange(4), np.arange(4.0)])
def test_few_figures_that_agree_excuse_no_garbage_beside_them(few: np.ndarray) -> None:
    """Where it isn't known what is scored one output that agrees speaks for all: not one that tells nothing."""
    with pytest.raises(VariantFailed, match="'y'"):
        check_agreement({"y": LOGITS[:4] * 1e10, "few": few}, {"y": LOGITS[:4], "few": few}, (4, 5))
