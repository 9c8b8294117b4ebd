"""Intervals: what must hold for any data, and that 95% means 95% on data with a known answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot import stats
from autopilot.profile import Interval

Sample = tuple[np.ndarray, np.ndarray]

# Seconds between a microsecond and a minute.
_LATENCY = st.floats(1e-6, 60.0)


@st.composite
def blocked(draw: st.DrawFn, min_blocks: int = 2) -> Sample:
    """Values in blocks of one size, at least ``min_blocks`` of them."""
    blocks, size = draw(st.integers(min_blocks, 12)), draw(st.integers(1, 40))
    seed, centre = draw(st.integers(0, 2**32 - 1)), draw(_LATENCY)
    values = centre * np.random.default_rng(seed).lognormal(0, draw(st.floats(0.0, 1.0)), blocks * size)
    return values, np.repeat(np.arange(blocks, dtype=np.int32), size)


def assert_ordered(found: Interval) -> None:
    assert 0 <= found.low <= found.value <= found.high


@given(blocked(), st.floats(1.0, 99.9))
def test_percentile_interval_contains_its_estimate(sample: Sample, q: float) -> None:
    """Bounds lie on either side of the estimate, which is numpy's percentile."""
    found = stats.percentile_interval(*sample, q)

    assert_ordered(found)
    assert found.value == pytest.approx(float(np.percentile(sample[0], q)))


@given(blocked(), st.sampled_from([None, 50.0, 95.0]), st.floats(1e-3, 1e3))
def test_intervals_scale_with_the_unit(sample: Sample, q: float | None, factor: float) -> None:
    """Milliseconds instead of seconds change nothing but the unit."""
    values, block = sample
    one = stats.mean_interval(values, block) if q is None else stats.percentile_interval(values, block, q)
    scaled = values * factor
    other = stats.mean_interval(scaled, block) if q is None else stats.percentile_interval(scaled, block, q)

    assert other.value == pytest.approx(one.value * factor, rel=1e-6)
    assert other.low == pytest.approx(one.low * factor, rel=1e-6)
    assert other.high == pytest.approx(one.high * factor, rel=1e-6)


@given(blocked(), st.integers(0, 2**32 - 1))
def test_order_inside_a_block_does_not_matter(sample: Sample, seed: int) -> None:
    """Only the block of a request counts, not its place in it."""
    values, block = sample
    order = np.lexsort((np.random.default_rng(seed).random(values.size), block))

    assert stats.percentile_interval(values[order], block, 90) == stats.percentile_interval(values, block, 90)
    assert stats.mean_interval(values[order], block).high == pytest.approx(stats.mean_interval(values, block).high)


@given(blocked(), blocked(), st.sampled_from([None, 50.0, 99.0]))
def test_ratio_interval_contains_its_estimate(a: Sample, b: Sample, q: float | None) -> None:
    """Also where the two readings have different numbers of blocks and requests."""
    assert_ordered(stats.ratio_interval(*a, *b, q=q))


@given(blocked())
def test_ratio_of_a_reading_with_itself_is_one(sample: Sample) -> None:
    """What is shared by both of a pair cancels, so the mean's ratio is exact."""
    found = stats.ratio_interval(*sample, *sample)

    assert (found.low, found.value, found.high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))


def test_intervals_are_wider_with_fewer_samples() -> None:
    """A quarter of the blocks gives a wider interval, for mean, median and ratio."""
    values, block = iid(40, 50)(np.random.default_rng(1))
    few = block < 10

    for measure in (stats.mean_interval, lambda v, b: stats.percentile_interval(v, b, 50)):
        wide, narrow = measure(values[few], block[few]), measure(values, block)
        assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)


@pytest.mark.parametrize(("q", "sides", "n"), [(95, 1, 59), (99, 1, 299), (95, 2, 72), (99, 2, 368), (50, 2, 6)])
def test_enough_for_is_the_binomial_minimum(q: float, sides: int, n: int) -> None:
    """LoadGen's figures: with one request fewer no upper bound exists."""
    assert stats.enough_for(q, sides=sides) == n
    assert (q / 100) ** n <= 0.05 / sides < (q / 100) ** (n - 1)


@pytest.mark.parametrize("q", [90, 95, 99])
def test_upper_rank_exists_exactly_from_enough_on(q: float) -> None:
    """The order statistics and the sample-size rule agree."""
    n = stats.enough_for(q)

    assert stats.order_ranks(n, q / 100)[1] == n
    assert stats.order_ranks(n - 1, q / 100)[1] is None


def test_percentile_has_no_upper_bound_when_requests_are_too_few() -> None:
    """A p99 of 300 requests is a number without an upper bound, not a guess."""
    values, block = iid(10, 30)(np.random.default_rng(0))

    assert math.isinf(stats.percentile_interval(values, block, 99).high)
    assert math.isfinite(stats.percentile_interval(values, block, 90).high)


def test_one_block_bounds_nothing() -> None:
    """Between-block spread can't be known from one block, however many requests it has."""
    values, block = iid(1, 5000)(np.random.default_rng(0))

    for found in (stats.percentile_interval(values, block, 50), stats.mean_interval(values, block)):
        assert found.low == 0
        assert math.isinf(found.high)


def test_blocks_that_differ_lower_the_effective_size() -> None:
    """Requests of one block that move together count as few; independent ones nearly all."""
    rng = np.random.default_rng(3)
    sizes = []
    for generate in (iid(30, 40), by_mood(30, 40)):
        values, block = generate(rng)
        sizes.append(stats.effective_size(values <= np.median(values), block, 0.5))

    assert sizes[0] > 600
    assert sizes[1] < 300


def test_rate_of_nothing_is_zero() -> None:
    """No processor time at all is a figure, not a division by zero."""
    assert stats.rate_interval(np.zeros(5), np.ones(5)) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("p", [0.9, 0.95, 0.975, 0.995])
def test_t_quantile_equals_scipys(p: float) -> None:
    """The expansion is good to five digits at every number of blocks."""
    scipy_stats = pytest.importorskip("scipy.stats")

    for df in (*range(1, 40), 100, 1000):
        assert stats.t_quantile(p, df) == pytest.approx(scipy_stats.t.ppf(p, df), rel=1e-5)


# ---- coverage on a simulated server ----------------------------------------------------------------

_SIGMA = 0.3
Generate = Callable[[np.random.Generator], Sample]


def _blocks(blocks: int, size: int) -> np.ndarray:
    return np.repeat(np.arange(blocks, dtype=np.int32), size)


def iid(blocks: int, size: int) -> Generate:
    """Independent log-normal latencies."""
    return lambda rng: (rng.lognormal(0, _SIGMA, blocks * size), _blocks(blocks, size))


def by_mood(blocks: int, size: int) -> Generate:
    """Half of the variance is shared by all requests of a block; the same distribution over all."""

    def generate(rng: np.random.Generator) -> Sample:
        mood = np.repeat(rng.standard_normal(blocks), size)
        return np.exp(_SIGMA * (mood + rng.standard_normal(blocks * size)) / math.sqrt(2)), _blocks(blocks, size)

    return generate


def autoregressive(blocks: int, size: int, memory: float = 0.9) -> Generate:
    """Each request resembles the one before, across block borders too."""

    def generate(rng: np.random.Generator) -> Sample:
        noise = rng.standard_normal(blocks * size) * math.sqrt(1 - memory**2)
        state, values = rng.standard_normal(), np.empty(blocks * size)
        for i, step in enumerate(noise):
            state = memory * state + step
            values[i] = state
        return np.exp(_SIGMA * values), _blocks(blocks, size)

    return generate


def truth(q: float | None) -> float:
    """The log-normal distribution's own percentile or mean."""
    return math.exp(_SIGMA**2 / 2 if q is None else _SIGMA * NormalDist().inv_cdf(q / 100))


def measure(sample: Sample, q: float | None) -> Interval:
    return stats.mean_interval(*sample) if q is None else stats.percentile_interval(*sample, q)


@pytest.mark.parametrize("q", [None, 50.0, 95.0, 99.0], ids=["mean", "p50", "p95", "p99"])
@pytest.mark.parametrize(
    ("generate", "least"),
    [(iid(12, 40), 0.93), (by_mood(20, 40), 0.92), (autoregressive(15, 40), 0.91)],
    ids=["iid", "blocks-differ", "autocorrelated"],
)
def test_interval_covers_the_truth_as_often_as_it_says(generate: Generate, least: float, q: float | None) -> None:
    """Of 250 simulated measurements about 95% contain the true value; 3.5 standard errors are 4.8 points."""
    rng = np.random.default_rng(7)
    found = [measure(generate(rng), q) for _ in range(250)]

    covered = sum(i.low <= truth(q) <= i.high for i in found) / len(found)

    assert covered >= least


@pytest.mark.parametrize("q", [None, 50.0], ids=["mean", "p50"])
def test_intervals_are_not_needlessly_wide(q: float | None) -> None:
    """On independent requests bounds are within 1.6 times the textbook width, so that verdicts are reached."""
    rng = np.random.default_rng(11)
    found = [measure(iid(30, 40)(rng), q) for _ in range(50)]
    width = float(np.mean([i.high - i.low for i in found]))

    spread = _SIGMA * (math.sqrt(math.pi / 2) if q else 1) / math.sqrt(30 * 40)
    assert width < 1.6 * 2 * 1.96 * spread * truth(q)


def pairs(rng: np.random.Generator, *, drift: float, size: tuple[int, int], blocks: int = 20) -> tuple[Sample, Sample]:
    """Candidate and baseline, twice as slow, on a machine whose speed walks by ``drift`` a block."""
    speed = np.cumsum(rng.standard_normal(blocks)) * drift
    made = []
    for n, factor in zip(size, (1.0, 2.0), strict=True):
        values = factor * np.exp(speed[:, None] + 0.2 * rng.standard_normal((blocks, n)))
        made.append((values.ravel(), _blocks(blocks, n)))
    return made[0], made[1]


@pytest.mark.parametrize("q", [None, 50.0, 95.0], ids=["mean", "p50", "p95"])
@pytest.mark.parametrize("size", [(40, 40), (60, 15)])
def test_ratio_covers_the_truth_while_the_machine_drifts(size: tuple[int, int], q: float | None) -> None:
    """Interleaved blocks share the drift, so the ratio's interval holds."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(150):
        a, b = pairs(rng, drift=0.05, size=size)
        found.append(stats.ratio_interval(*a, *b, q=q))

    assert sum(i.low <= 0.5 <= i.high for i in found) / len(found) >= 0.90


def test_ratio_is_sharper_than_two_absolute_figures_when_the_machine_drifts() -> None:
    """That is what interleaving is for."""
    a, b = pairs(np.random.default_rng(2), drift=0.1, size=(40, 40))
    ratio = stats.ratio_interval(*a, *b, q=50)
    one = stats.percentile_interval(*a, 50)

    assert (ratio.high - ratio.low) / ratio.value < 0.5 * (one.high - one.low) / one.value


@pytest.mark.parametrize("q", [None, 50.0, 99.0], ids=["mean", "p50", "p99"])
def test_same_model_against_itself_ties(q: float | None) -> None:
    """A/A: at most about one in twenty readings tells two equal servers apart."""
    rng = np.random.default_rng(13)
    alarms = 0
    for _ in range(150):
        (a, a_block), (b, b_block) = pairs(rng, drift=0.02, size=(40, 40))
        found = stats.ratio_interval(a, a_block, b / 2, b_block, q=q)
        alarms += not found.low <= 1 <= found.high

    assert alarms / 150 <= 0.10


def test_ratio_holds_where_the_percentile_lies_at_the_edge_of_a_mode() -> None:
    """5% of the requests are slow: the p95 has no slope there, and its ratio is covered all the same."""
    rng = np.random.default_rng(17)
    block = _blocks(100, 40)
    covered = 0
    for _ in range(150):
        a, b = (np.exp(np.where(rng.random(4000) < 0.05, 1.0, 0.0) + 0.05 * rng.standard_normal(4000)) for _ in "ab")
        found = stats.ratio_interval(a, block, b, block, q=95)
        covered += found.low <= 1 <= found.high

    assert covered / 150 >= 0.92


def test_mean_holds_where_few_requests_carry_it() -> None:
    """1% of 400 requests is ten times slower: the bound on that side knows of the skewness."""
    rng = np.random.default_rng(19)
    block = _blocks(40, 10)
    found = [stats.mean_interval(np.where(rng.random(400) < 0.01, 10.0, 1.0), block) for _ in range(300)]

    # 1.8% of the readings hold no slow request at all and can't know.
    assert sum(i.low <= 1.09 <= i.high for i in found) / 300 >= 0.93
