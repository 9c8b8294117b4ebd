"""Answers kept for a comparison: few values, of all parts of a large one, and nothing of the arrays themselves."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.bench import scorer
from autopilot.bench.agreement import FirstRuns
from autopilot.bench.answers import MOST_VALUES, Answers, thinned
from autopilot.errors import VariantFailed
from autopilot.testing import FakeSession
from tests.integration.bench_support import samples, write_split

# Values of a sample's answer; a picture of 21 classes has more than ten times as many.
LARGE = 400_000


def taken(work: Callable[[], object]) -> int:
    """Bytes that ``work`` allocates beyond what was there, at the most."""
    is_ours = not tracemalloc.is_tracing()  # `python -X tracemalloc` traces already
    if is_ours:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if is_ours:
            tracemalloc.stop()


def test_comparing_first_runs_takes_little_beside_the_answers() -> None:
    """It happens in the serving process, before its memory is read: a copy would be told as the model's."""
    runs = FirstRuns(("y",), "")
    outputs = samples(16, LARGE)

    def compared() -> None:
        for size in (15, 16):
            runs.add(size, [outputs[:size]])

    assert taken(compared) < outputs.nbytes / 2


def test_comparing_sizes_takes_less_than_the_answers_of_one(tmp_path: Path) -> None:
    """Scoring writes them to files as they come: a model that has room for that has room for this."""
    answer = samples(1, LARGE)
    session = FakeSession(lambda feed: [np.repeat(answer, len(feed["x"]), axis=0)])
    split = write_split(tmp_path / "split", {"x": samples(40, 1)})

    took = taken(lambda: scorer.compare_sizes(session, split, 4, [1, 2], 1, scored=""))

    assert took < scorer.COMPARED * answer.nbytes


def test_nothing_of_a_run_is_kept() -> None:
    """A session whose memory is bound writes over it; a slice would hold all of it."""
    for width in (3, LARGE):
        outputs = samples(2, width)
        kept = Answers.of([{"y": outputs}]).values["y"]

        assert not np.shares_memory(kept, outputs)
        assert kept.base is None


@given(st.lists(st.integers(1, 64), min_size=1, max_size=3), st.integers(1, 3))
def test_few_values_are_all_kept_and_of_many_some_of_every_channel(shape: list[int], n: int) -> None:
    """As many as are wanted at most."""
    values = np.arange(n * np.prod(shape)).reshape(n, *shape)
    kept = thinned(values)

    if values[0].size <= MOST_VALUES:
        np.testing.assert_array_equal(kept, values)
        return
    assert 500 <= kept[0].size <= MOST_VALUES
    for axis, length in enumerate(shape):
        assert len(set(np.unravel_index(kept[0], shape)[axis].tolist())) == length


@pytest.mark.parametrize("channel", [0, 3, 7])
def test_garbage_in_one_channel_of_a_large_answer_is_refused(channel: int) -> None:
    """Whichever it is."""
    runs = FirstRuns(("y",), "")
    outputs = samples(2, 2**14, 8)
    runs.add(1, [outputs[:1]])
    wrong = outputs.copy()
    wrong[..., channel] *= 1e3

    with pytest.raises(VariantFailed, match="'y'"):
        runs.add(2, [wrong])


def test_large_answers_of_other_shapes_are_not_compared() -> None:
    """Padded to the longest of a run, however near: what stands in one place isn't the same there."""
    runs = FirstRuns(("y",), "")
    runs.add(1, [samples(1, 3 * MOST_VALUES - 1)])

    runs.add(2, [samples(2, 3 * MOST_VALUES, seed=1)])
