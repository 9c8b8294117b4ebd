"""Schedules of requests: their rates, their shapes, and that the same seed gives the same times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.bench.arrivals import DEPTH, Load, read_trace, window
from autopilot.errors import SpecError
from autopilot.spec import Traffic
from tests.queueing import mean_wait_s, sojourn_s

KINDS = ("poisson", "bursty", "diurnal")


def load(arrivals: str = "poisson", rate_rps: float | None = 100.0, **more: float) -> Load:
    """Server traffic ready to be sent."""
    return Load.of(Traffic("server", rate_rps, arrivals, **more))


def trace(folder: Path, text: str) -> str:
    """A trace file's path."""
    path = folder / "trace.csv"
    path.write_text(text)
    return str(path)


@given(
    kind=st.sampled_from(KINDS),
    rate_rps=st.floats(0.5, 5000),
    index=st.integers(0, 50),
    window_s=st.floats(0.05, 2.0),
    ramp_s=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_window_is_ascending_inside_its_bounds_and_repeatable(
    kind: str, rate_rps: float, index: int, window_s: float, ramp_s: float, seed: int
) -> None:
    """Every kind of traffic, at every rate."""
    told = {"window_s": window_s, "ramp_s": ramp_s, "seed": seed}
    times = window(load(kind, rate_rps), index, **told)

    assert np.all(np.diff(times) >= 0)
    assert not times.size or (times[0] >= -ramp_s - 1e-6 and times[-1] < window_s + 1e-6)
    assert np.array_equal(times, window(load(kind, rate_rps), index, **told))


@pytest.mark.parametrize("kind", KINDS)
def test_mean_rate_is_the_one_asked_for(kind: str) -> None:
    """Over whole periods, within four standard deviations of a Poisson count."""
    times = window(load(kind, 500.0), 0, window_s=200.0, ramp_s=0.0, seed=3)

    assert abs(times.size - 100_000) < 4 * np.sqrt(100_000)


def test_poisson_gaps_are_exponential() -> None:
    """Mean and standard deviation agree, and the share above the mean is 1/e, as LoadGen's server scenario has it."""
    gaps = np.diff(window(load(rate_rps=1000.0), 0, window_s=100.0, ramp_s=0.0, seed=1))

    assert np.mean(gaps) == pytest.approx(1e-3, rel=0.02)
    assert np.std(gaps) == pytest.approx(1e-3, rel=0.02)
    assert np.mean(gaps > 1e-3) == pytest.approx(np.exp(-1), abs=0.01)


def test_bursts_hold_all_requests() -> None:
    """None in the pauses, and the mean rate in bursts that take a quarter of the time is four times as high."""
    times = window(load("bursty", 400.0, on_s=0.1, off_s=0.3), 2, window_s=4.0, ramp_s=0.4, seed=0)

    assert np.all((times + 8.0) % 0.4 < 0.1 + 1e-9)
    assert abs(times.size - 400 * 4.4) < 4 * np.sqrt(400 * 4.4)


def test_diurnal_rate_swings_around_its_mean() -> None:
    """The middle of a period is busiest, its ends are calmest."""
    times = window(load("diurnal", 1000.0, period_s=20.0), 0, window_s=20.0, ramp_s=0.0, seed=0)
    counts, _ = np.histogram(times, bins=20, range=(0, 20))

    assert counts[9:11].mean() == pytest.approx(1000 * (1 + DEPTH), rel=0.05)
    assert counts[[0, -1]].mean() == pytest.approx(1000 * (1 - DEPTH), rel=0.25)


def test_windows_of_other_numbers_and_seeds_differ() -> None:
    """No window repeats another one's luck."""
    one = window(load(), 0, window_s=1.0, ramp_s=0.0, seed=0)

    assert not np.array_equal(one, window(load(), 1, window_s=1.0, ramp_s=0.0, seed=0))
    assert not np.array_equal(one, window(load(), 0, window_s=1.0, ramp_s=0.0, seed=1))


def test_trace_is_replayed_as_recorded_and_over_again(tmp_path: Path) -> None:
    """Three requests in three seconds; the fourth second begins the next round."""
    replayed = load(trace(tmp_path, "time\n100.0\n100.5\n102.0\n"), None)

    assert replayed.rate_rps == pytest.approx(1.0)
    assert window(replayed, 0, window_s=3.0, ramp_s=0.0, seed=0) == pytest.approx([0.0, 0.5, 2.0])
    assert window(replayed, 1, window_s=3.0, ramp_s=1.5, seed=9) == pytest.approx([-1.0, 0.0, 0.5, 2.0])


def test_rate_beside_a_trace_rescales_it(tmp_path: Path) -> None:
    """The shape stays, the clock runs faster."""
    fast = load(trace(tmp_path, "0\n1\n2\n3\n"), 10.0)

    assert fast.rate_rps == 10.0
    assert window(fast, 0, window_s=0.4, ramp_s=0.0, seed=0) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert fast.at(20.0).times_s == pytest.approx([0.0, 0.05, 0.1, 0.15])


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds 0"), ("time\n", "holds 0"), ("1\n1\n", "two different"), ("1\nsoon\n", ":2:"), ("1\nnan\n", ":2:")],
)
def test_trace_that_tells_no_rate_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """The line is named."""
    with pytest.raises(SpecError, match=said):
        read_trace(Path(trace(tmp_path, text)))


def test_bursty_window_holds_whole_cycles() -> None:
    """Else windows would differ by the part of a burst that they hold."""
    bursty = load("bursty", 100.0, on_s=0.1, off_s=0.3)

    assert bursty.window_s == pytest.approx(0.4)
    assert load(rate_rps=10_000.0).window_s < load(rate_rps=20.0).window_s


def test_waits_on_the_schedule_are_those_of_a_known_queue() -> None:
    """M/D/1 at 70% load: the recursion over a long schedule gives the mean wait of queueing theory."""
    service_s = 0.7e-3
    times = window(load(rate_rps=1000.0), 0, window_s=200.0, ramp_s=0.0, seed=5)
    waits = sojourn_s(times, service_s) - service_s

    assert np.mean(waits) == pytest.approx(mean_wait_s(0.7, service_s), rel=0.05)
