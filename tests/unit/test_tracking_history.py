"""The search over time: what the parent run's charts are drawn from."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autopilot.result import TrialRecord, TrialState
from autopilot.testing import fake_measured, fake_measurement, fake_trial, fake_variant
from autopilot.tracking.history import MARKER, Course, Goal

LATENCY = Goal("latency_p50_ms")


def trial(number: int, latency_ms: float, *, drop: float = 0.0) -> TrialRecord:
    """A complete trial; a drop of 0.5 is out of the fake budget."""
    return fake_trial(number, fake_variant("static_int8", n=number), fake_measured(latency_ms=latency_ms, drop=drop))


def test_best_so_far_is_of_trials_in_budget_only() -> None:
    """A faster variant that breaks a limit is a point, never the best."""
    points = Course((LATENCY,)).add([trial(0, 1.0), trial(1, 0.5), trial(2, 0.1, drop=0.5), trial(3, 0.4)])

    assert [points[n].get("across_trials/best_latency_p50_ms") for n in range(4)] == [None, 0.5, 0.5, 0.4]
    assert [points[n]["across_trials/latency_p50_ms"] for n in range(4)] == [1.0, 0.5, 0.1, 0.4]
    assert [points[n][MARKER] for n in range(4)] == [0, 1, 1, 2]


def test_trials_that_were_not_measured_count_as_failed_and_take_their_time() -> None:
    """A point without the objective, with the seconds that were spent; what a cache saved was not."""
    broken = replace(fake_trial(0, fake_variant("float16")), seconds={"build": 2.0, "build_saved": 9.0})

    points = Course((LATENCY,)).add([broken])

    assert points == {0: {MARKER: 0.0, "across_trials/failed": 1.0, "across_trials/seconds": 2.0}}


def test_duplicate_is_no_further_variant_in_budget() -> None:
    """It carries the figures of the trial that it equals."""
    twin = replace(trial(1, 0.5), state=TrialState.DUPLICATE)

    points = Course((LATENCY,)).add([trial(0, 0.5), twin])

    assert points[1][MARKER] == 1


def test_more_is_better_where_the_goal_says_so() -> None:
    """Of a throughput the highest is the best."""
    rates = [
        replace(trial(n, 0.5), measured={"throughput_rps": fake_measurement("throughput_rps", v)})
        for n, v in enumerate([5.0, 9.0, 7.0])
    ]
    judged = [replace(r, verdict=trial(0, 0.5).verdict) for r in rates]

    points = Course((Goal("throughput_rps", maximize=True),)).add(judged)

    assert [points[n]["across_trials/best_throughput_rps"] for n in range(3)] == [5.0, 9.0, 9.0]


@given(order=st.permutations(range(6)), cut=st.integers(0, 6))
def test_points_do_not_depend_on_the_order_records_come_in(order: list[int], cut: int) -> None:
    """Other runs' trials come late: a point waits for those before it, and no trial has two."""
    records = [trial(n, 1.0 - 0.1 * ((n * 5) % 7)) for n in range(6)]
    course = Course((LATENCY,))
    first = course.add([records[n] for n in order[:cut]])
    second = course.add([records[n] for n in order[cut:]] + records)

    assert not first.keys() & second.keys()
    assert first | second == Course((LATENCY,)).add(records)
