"""Whether the machine moved, and figures that were taken while it did."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot import stats
from autopilot.profile import Interval


@given(st.floats(-0.5, 2.0), st.floats(1e-3, 1e3), st.floats(0.5, 1.0), st.floats(1.0, 2.0))
def test_carried_covers_the_raw_and_the_corrected_figure(drift: float, value: float, down: float, up: float) -> None:
    """Both readings of what the machine did stay possible, whichever way it moved."""
    figure = Interval(value, value * down, value * up)
    found = stats.carried(figure, drift)

    for factor in (1.0, 1 / (1 + drift)):
        assert found.low <= figure.low * factor
        assert figure.high * factor <= found.high
    assert found.value == value


def test_no_drift_carries_nothing() -> None:
    """A machine that stood still leaves the interval as it was, missing bounds included."""
    for figure in (Interval(2.0, 1.9, 2.1), Interval(2.0, 0.0, math.inf)):
        assert stats.carried(figure, 0.0) == figure


@pytest.mark.parametrize("drift", [-1.0, math.nan, math.inf])
def test_impossible_drift_is_refused(drift: float) -> None:
    """A machine can't be infinitely fast."""
    with pytest.raises(ValueError, match="no share"):
        stats.carried(Interval(1.0, 0.9, 1.1), drift)


def test_few_blocks_have_no_interval() -> None:
    """Nine blocks tell a change but not how sure it is; one tells nothing."""
    found = stats.change_within(np.array([1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]))

    assert found.low == 0
    assert math.isinf(found.high)
    assert not stats.has_moved(found)
    with pytest.raises(ValueError, match="halves"):
        stats.change_within(np.array([1.0]))


def test_step_is_found_and_measured() -> None:
    """A machine that gets 3% slower half way has certainly moved, by about that."""
    rng = np.random.default_rng(1)
    medians = np.exp(0.005 * rng.standard_normal(60)) * np.repeat([1.0, 1.03], 30)
    found = stats.change_within(medians)

    assert found.value == pytest.approx(1.03, abs=0.005)
    assert stats.has_moved(found, 0.01)
    assert not stats.has_moved(found, 0.05)


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e3))
def test_change_is_free_of_the_unit(seed: int, factor: float) -> None:
    """Seconds or milliseconds, the share is the same."""
    medians = np.random.default_rng(seed).lognormal(0, 0.1, 24)
    one, other = stats.change_within(medians), stats.change_within(medians * factor)

    assert other.value == pytest.approx(one.value)
    assert other.low == pytest.approx(one.low)


@pytest.mark.parametrize("memory", [0.0, 0.5], ids=["independent", "neighbours-alike"])
def test_machine_that_stands_still_is_rarely_said_to_move(memory: float) -> None:
    """Of 500 steady readings of 60 blocks at most 7% are called a move, neighbours alike or not."""
    rng = np.random.default_rng(2)
    moved = 0
    for _ in range(500):
        steps = rng.standard_normal(100) * math.sqrt(1 - memory**2)
        mood = np.zeros(100)
        for k in range(1, 100):
            mood[k] = memory * mood[k - 1] + steps[k]
        moved += stats.has_moved(stats.change_within(np.exp(0.02 * mood[40:])))

    assert moved / 500 <= 0.07
