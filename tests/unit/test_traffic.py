"""Server traffic from raw times to verdicts: what counts, what is lost, what is overload; the highest rate."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot import plugins, stats
from autopilot.bench.max_rate import MAX_RATE_RPS, bisect
from autopilot.bench.traffic import gathered
from autopilot.budget import Judgement, Limit
from autopilot.profile import LatencyReading, Measurement, Profile, RateReading, TrafficReading
from tests.queueing import sojourn_s

MS = 1_000_000


def traffic(offered: list[int], answered: list[int], **more: object) -> TrafficReading:
    """Windows of one second with so many requests and answers; what is not answered was dropped."""
    n = len(offered)
    told: dict[str, object] = {
        "rate_rps": float(np.mean(offered)),
        "window_s": 1.0,
        "instances": 1,
        "batch": 1,
        "offered": np.array(offered, dtype=np.int32),
        "answered": np.array(answered, dtype=np.int32),
        "dropped": np.zeros(n, dtype=np.int32),
        "unanswered": np.zeros(n, dtype=np.int32),
        "busy_s": np.full(n, 0.5),
        "batch_sizes": np.array([0, sum(answered)], dtype=np.int32),
        "full_runs_s": np.full(sum(answered), 1e-3),
        "queue_s": np.zeros(sum(answered)),
        "service_s": np.full(sum(answered), 1e-3),
        "send_lag_s": np.zeros(sum(offered)),
    }
    return TrafficReading(**(told | more))  # type: ignore[arg-type]


def reading(seen: TrafficReading, latency_s: float = 0.01) -> LatencyReading:
    """Requests of ``latency_s`` each in the windows of ``seen``."""
    counts = seen.offered
    latencies = latency_s * (1 + 0.01 * np.random.default_rng(0).standard_normal(int(counts.sum())))
    block = np.repeat(np.arange(counts.size, dtype=np.int32), counts)
    return LatencyReading(latencies, block, np.ones(counts.size), np.full(counts.size, 0.5), traffic=seen)


def measured(axis: str, own: LatencyReading, beside: LatencyReading | None = None) -> Measurement:
    """What the axis's meter makes of it."""
    meter = plugins.find_axis(axis)
    assert meter is not None
    return meter[0].summarise(Profile("v", latency=own, baseline_latency=beside), axis)


STEADY = traffic([100, 104, 96, 101, 99, 100] * 3, [100, 103, 97, 100, 100, 100] * 3)
OVER = traffic([100, 104, 96, 101, 99, 100] * 3, [60, 61, 60, 60, 59, 60] * 3, busy_s=np.full(18, 0.999))


def test_window_counts_from_due_to_done_and_leaves_the_ramp_out() -> None:
    """A request that the server was late for waits from when it was due, not from when it was sent."""
    due = np.array([-5, 0, 10, 20]) * MS
    sent = np.array([-5, 4, 10, 20]) * MS
    runs = [([0], -5 * MS, 1 * MS), ([1, 2], 12 * MS, 15 * MS), ([3], 21 * MS, 60 * MS)]
    found = gathered(due, sent, runs, times_ns=(0, 30 * MS, 100 * MS), cpu_s=0.01)

    assert found.latency_s == pytest.approx([0.015, 0.005, 0.040])
    assert found.send_lag_s == pytest.approx([0.004, 0.0, 0.0])
    assert found.queue_s == pytest.approx([0.008, 0.002, 0.001])
    assert found.service_s == pytest.approx([0.003, 0.003, 0.039])
    assert found.sizes.tolist() == [2, 1]
    assert found.runs_s == pytest.approx([0.003, 0.039])
    assert found.answered == 3  # the ramp's own request was answered in the window, the last one after it
    assert found.busy_s == pytest.approx(0.001 + 0.003 + 0.009)


def test_lost_requests_count_with_the_time_until_waiting_ended() -> None:
    """One refused by a full queue, one never started."""
    due = np.array([0, 10, 20]) * MS
    sent = np.array([0, -1, 20]) * MS
    found = gathered(due, sent, [([0], 0, 2 * MS)], times_ns=(0, 30 * MS, 100 * MS), cpu_s=0.0)

    assert found.latency_s == pytest.approx([0.002, 0.090, 0.080])
    assert found.is_dropped.tolist() == [False, True, False]
    assert found.is_unanswered.tolist() == [False, False, True]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.floats(1e-4, 0.1))
def test_gathered_latencies_are_those_of_the_queue(gaps: list[float], service_s: float) -> None:
    """Served first come first served in constant time, latencies are Lindley's."""
    due_s = np.cumsum(gaps)
    done_s = due_s + sojourn_s(due_s, service_s)
    due, done = (np.round(x * 1e9).astype(np.int64) for x in (due_s, done_s))
    runs = [([i], int(d - round(service_s * 1e9)), int(d)) for i, d in enumerate(done)]
    end = int(done[-1]) + 1
    found = gathered(due, due, runs, times_ns=(0, end, end), cpu_s=0.0)

    assert found.latency_s == pytest.approx(sojourn_s(due_s, service_s), abs=1e-8)
    assert found.answered == len(gaps)


def test_overload_puts_every_percentile_out() -> None:
    """However short the windows were: the longer such traffic goes on, the longer a request waits."""
    found = measured("latency_p50_ms", reading(OVER, 1e-4))

    assert Limit("latency_p50_ms", 1e9).judge(found) is Judgement.OUT
    assert Limit("latency_p50_ms", 9.0, relative=True).judge(found) is Judgement.OUT
    assert "overloaded" in found.reason
    assert measured("throughput_rps", reading(OVER)).value == pytest.approx(60, rel=0.01)


def test_steady_traffic_is_no_overload() -> None:
    """Noise of arrivals around a rate that the server keeps up with."""
    found = measured("latency_p50_ms", reading(STEADY))

    assert found.value == pytest.approx(10.0, rel=0.01)
    assert measured("throughput_rps", reading(STEADY)).value == pytest.approx(100, rel=0.01)


def test_one_window_is_no_proof_of_overload() -> None:
    """Nothing is known of the spread."""
    assert not stats.is_overloaded(np.array([0.9]), 1.0, np.array([9.0]))


@pytest.mark.parametrize(("busy", "expected"), [(0.99, True), (0.5, False)])
def test_small_growth_is_overload_only_in_a_busy_server(busy: float, expected: bool) -> None:
    """An idle server's queue is still filling to its steady length."""
    assert stats.is_overloaded(np.array([0.02, 0.021, 0.019, 0.02, 0.022]), busy, np.zeros(0)) is expected


def test_runs_that_take_longer_than_their_requests_are_overload_in_short_windows_too() -> None:
    """Runs of two in 25 ms while 100 requests a second come: 25% too slow, whatever the windows' noise."""
    short = replace(STEADY, batch=2, full_runs_s=np.array([0.024, 0.026, 0.025, 0.025]))

    assert measured("latency_p50_ms", reading(short)).value == math.inf
    assert measured("latency_p50_ms", reading(replace(short, instances=2))).value != math.inf


def test_server_near_its_capacity_is_said_to_be() -> None:
    """Its queue was still filling."""
    near = replace(STEADY, full_runs_s=np.full(50, 0.0098))

    assert "at 98% of what it can do" in measured("latency_p50_ms", reading(near)).how


@pytest.mark.parametrize("axis", plugins.axis_names())
@pytest.mark.parametrize("which", ["candidate", "baseline", "both"])
def test_server_that_answers_nothing_is_judged_too(axis: str, which: str) -> None:
    """A service slower than a window: no division by the nothing that was answered, and nothing passes."""
    dead = reading(
        traffic([100] * 6, [0] * 6, unanswered=np.full(6, 100, dtype=np.int32), lost_from_s=0.009, busy_s=np.ones(6))
    )
    own, beside = (dead if which in (who, "both") else reading(STEADY) for who in ("candidate", "baseline"))
    meter = plugins.find_axis(axis)
    assert meter is not None
    profile = Profile("v", latency=own, baseline_latency=beside, price_per_hour=1.0)
    found = meter[0].summarise(profile, axis)

    if which != "baseline" and (axis.startswith("latency") or axis == "throughput_rps"):
        limit = Limit(axis, 1e-3 if axis == "throughput_rps" else 1e9, upper=axis != "throughput_rps")
        assert limit.judge(found) is Judgement.OUT
    assert found.value is None or found.low is not None


def test_lost_requests_take_the_upper_bound_of_what_rests_on_them() -> None:
    """One lost in 1,800: the median stands, the mean and the extreme percentile have no upper bound."""
    lost = np.zeros(18, dtype=np.int32)
    lost[3] = 1
    own = reading(replace(STEADY, unanswered=lost, lost_from_s=0.0101))
    own = replace(own, latency_s=np.minimum(own.latency_s, 0.0102))

    assert math.isfinite(measured("latency_p50_ms", own).high or math.inf)
    assert measured("latency_mean_ms", own).high == math.inf
    assert measured("latency_p99_ms", own).high == math.inf
    assert "lower bound" in measured("latency_p50_ms", own).how


def test_overloaded_baseline_bounds_ratios_from_above_only() -> None:
    """What was read of it is less than its latency, so nothing may be out because of it."""
    ratio = measured("latency_p50_ms", reading(STEADY), reading(OVER, 0.1)).ratio

    assert ratio is not None
    assert ratio.low == 0.0
    assert ratio.high < 0.2


def test_dropped_share_counts_both_kinds_of_lost() -> None:
    """Refused and unanswered, of all that came."""
    lost = np.full(18, 2, dtype=np.int32)
    found = measured("dropped_share", reading(replace(STEADY, dropped=lost, unanswered=lost)))

    assert found.value == pytest.approx(0.04, rel=0.01)
    assert Limit("dropped_share", 0.01).judge(found) is Judgement.OUT


def test_none_lost_still_has_an_upper_bound_above_zero() -> None:
    """None in 1,800 says no more than that."""
    found = measured("dropped_share", reading(STEADY))

    assert found.value == 0.0
    assert 0.001 < (found.high or 0.0) < 0.01


def test_max_rate_is_missing_until_it_was_searched_for() -> None:
    """The reason says when it is."""
    searched = replace(STEADY, max_rate=RateReading(100.0, 90.0, 120.0, 5))

    assert measured("max_rate_rps", reading(STEADY)).value is None
    assert measured("max_rate_rps", reading(searched)).value == 100.0


@given(truth=st.floats(2.0, 15_000.0), first=st.floats(1.0, 20_000.0))
def test_bisection_finds_the_highest_rate_that_holds(truth: float, first: float) -> None:
    """From any start, to the step's width."""
    found = bisect(lambda rate: (rate <= truth, rate <= truth), first, is_over=lambda: False)

    if found.probes < 16:
        assert truth / 1.06 <= found.rate_rps <= truth
    assert found.low <= found.rate_rps <= found.high


def test_bisection_ends_with_its_time_and_says_how_much_is_sure() -> None:
    """One probe at least; rates too close to call count as what they seem to be."""
    over = iter([False, True])
    found = bisect(lambda rate: (None, rate < 130), 100.0, is_over=lambda: next(over))

    assert found.rate_rps == 100.0
    assert (found.low, found.high) == (0.0, math.inf)


def test_bisection_stops_at_what_the_generator_can_send() -> None:
    """Above it lateness would be the generator's."""
    found = bisect(lambda rate: (True, True), 100.0, is_over=lambda: False)

    assert found.rate_rps == MAX_RATE_RPS
    assert found.high == math.inf
