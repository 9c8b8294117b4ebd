"""What fresh processes add to an interval: properties for any figure, and coverage on simulated processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot import stats
from autopilot.profile import Interval

_SPREADS = st.floats(0.0, 0.2)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    """A positive figure with bounds, sometimes without one or both."""
    value = draw(st.floats(1e-6, 1e3))
    low = draw(st.one_of(st.just(0.0), st.floats(0.2, 1.0).map(lambda share: value * share)))
    high = draw(st.one_of(st.just(math.inf), st.floats(1.0, 5.0).map(lambda share: value * share)))
    return Interval(value, low, high)


@given(intervals(), _SPREADS, st.integers(1, 9), st.integers(1, 50))
def test_widened_contains_the_interval(interval: Interval, spread: float, processes: int, pairs: int) -> None:
    """Knowing that processes differ never makes a figure surer; missing bounds stay missing."""
    found = stats.widened(interval, spread, processes=processes, pairs=pairs)

    assert found.value == interval.value
    assert 0 <= found.low <= interval.low
    assert interval.high <= found.high
    assert (found.low == 0) == (interval.low == 0)
    assert math.isfinite(found.high) == math.isfinite(interval.high) or pairs == 1


@given(intervals(), _SPREADS, _SPREADS)
def test_widened_grows_with_the_spread(interval: Interval, first: float, second: float) -> None:
    """Processes that differ more give wider bounds."""
    less, more = sorted((first, second))
    narrow, wide = (stats.widened(interval, s, processes=2, pairs=6) for s in (less, more))

    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@given(intervals(), _SPREADS, st.floats(1e-3, 1e3))
def test_widened_scales_with_the_unit(interval: Interval, spread: float, factor: float) -> None:
    """Milliseconds instead of seconds change nothing but the unit."""
    scaled = Interval(interval.value * factor, interval.low * factor, interval.high * factor)
    one, other = (stats.widened(i, spread, processes=1, pairs=6) for i in (interval, scaled))

    assert other.low == pytest.approx(one.low * factor)
    assert other.high == pytest.approx(one.high * factor)


def test_more_processes_and_more_pairs_narrow_it() -> None:
    """A figure from four processes, or a spread from more pairs, is surer."""
    figure = Interval(1.0, 0.999, 1.001)
    base = stats.widened(figure, 0.005, processes=1, pairs=6)

    assert stats.widened(figure, 0.005, processes=4, pairs=6).high < base.high
    assert stats.widened(figure, 0.005, processes=1, pairs=60).high < base.high


@pytest.mark.parametrize(("spread", "processes", "pairs"), [(0.1, 0, 3), (0.1, 1, 0), (-0.1, 1, 3)])
def test_widened_refuses_what_says_nothing(spread: float, processes: int, pairs: int) -> None:
    """No process and no pair is no knowledge, not a spread of nothing."""
    with pytest.raises(ValueError, match="widens nothing"):
        stats.widened(Interval(1.0, 0.9, 1.1), spread, processes=processes, pairs=pairs)


def test_figure_of_zero_is_left_alone() -> None:
    """It has no logarithm."""
    assert stats.widened(Interval(0.0, 0.0, 0.0), 0.1, processes=1, pairs=3) == Interval(0.0, 0.0, 0.0)


@given(st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=20))
def test_process_spread_takes_the_mean_as_known(log_ratios: list[float]) -> None:
    """Which process is named first doesn't matter, and a shift of all pairs counts as spread."""
    values = np.array(log_ratios)

    assert stats.process_spread(values) == pytest.approx(stats.process_spread(-values))
    assert stats.process_spread(values) >= values.std() - 1e-12


def test_no_pair_has_no_spread() -> None:
    """Neither function makes a figure of nothing."""
    with pytest.raises(ValueError, match="no pair"):
        stats.process_spread(np.array([]))
    with pytest.raises(ValueError, match="no pair"):
        stats.ratio_over_processes([])


@given(st.lists(intervals(), min_size=2, max_size=8))
def test_ratio_over_processes_is_never_narrower_than_its_requests_allow(ratios: list[Interval]) -> None:
    """Pairs that agree by luck don't make requests surer than they are."""
    found = stats.ratio_over_processes(ratios)

    assert found.low <= found.value <= found.high
    known = [math.log(r.value / r.low) for r in ratios if r.low > 0]
    if 2 * len(known) <= len(ratios):
        assert found.low == 0
    else:
        pooled = math.sqrt(np.mean(np.square(known)) / len(ratios))
        assert math.log(found.value / found.low) >= pooled * (1 - 1e-6) - 1e-12


def test_one_pair_of_processes_bounds_nothing() -> None:
    """However many requests it answered."""
    assert stats.ratio_over_processes([Interval(1.01, 1.009, 1.011)]) == Interval(pytest.approx(1.01), 0.0, math.inf)


# ---- coverage on simulated processes ---------------------------------------------------------------

_TRUE, _BETWEEN, _WITHIN = 1.0, 0.004, 0.001


def seen(rng: np.random.Generator, count: int) -> list[Interval]:
    """Ratios that pairs of fresh processes show: their own offset, and what requests add to it."""
    logs = math.log(_TRUE) + _BETWEEN * rng.standard_normal(count) + _WITHIN * rng.standard_normal(count)
    return [Interval(math.exp(x), math.exp(x - 1.96 * _WITHIN), math.exp(x + 1.96 * _WITHIN)) for x in logs]


def test_widened_covers_the_truth_as_often_as_it_says() -> None:
    """With the spread from six pairs, 2,000 figures of one pair each: plain intervals hold a third of them."""
    rng = np.random.default_rng(3)
    plain = covered = 0
    for _ in range(2000):
        (figure,) = seen(rng, 1)
        spread = stats.process_spread(np.log([r.value for r in seen(rng, 6)]))
        found = stats.widened(figure, spread, processes=1, pairs=6)
        plain += figure.low <= _TRUE <= figure.high
        covered += found.low <= _TRUE <= found.high

    assert covered / 2000 >= 0.94
    assert plain / 2000 < 0.5


@pytest.mark.parametrize("pairs", [2, 4, 8])
def test_ratio_over_processes_covers_the_truth_as_often_as_it_says(pairs: int) -> None:
    """2,000 ratios, each from a few pairs, with nothing known of their spread."""
    rng = np.random.default_rng(4)
    found = [stats.ratio_over_processes(seen(rng, pairs)) for _ in range(2000)]

    assert sum(r.low <= _TRUE <= r.high for r in found) / 2000 >= 0.94
