"""Drift of the machine through a study, and ratios that changed while they were measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autopilot.profile import LatencyReading
from autopilot.search.steadiness import Drift, Reading, swing
from tests.unit.search_support import reading


def drifting(*medians_ms: float, allowed: float | None = 0.05) -> tuple[Drift, list[str | None]]:
    """What a study says of trials beside which the baseline's median was so; the first is its reference."""
    drift = Drift(allowed=allowed)
    drift.begin("validation", reading(medians_ms[0]))
    said = []
    for median in medians_ms[1:]:
        beside = reading(median)
        found = drift.of("validation", beside, verifying=False)
        said.append(drift.moved(Reading(reading(), beside, found)))
        drift.note("validation", beside)
    return drift, said


def test_machine_that_moved_by_more_than_the_margin_is_named() -> None:
    """The reading is taken again."""
    assert drifting(1.0, 1.2)[1] == ["the machine is 20% slower than at the start"]
    assert drifting(1.0, 0.8)[1] == ["the machine is 20% faster than at the start"]


def test_movement_inside_the_margin_is_no_reason() -> None:
    """The margin is there for it."""
    assert drifting(1.0, 1.04, 0.97)[1] == [None, None]


def test_machine_that_stays_where_it_moved_to_is_not_waited_for() -> None:
    """Throttled for good: measuring every trial twice would only take twice as long."""
    assert [bool(s) for s in drifting(1.0, 1.3, 1.31, 1.29, 1.0)[1]] == [True, False, False, False]


def test_relative_limits_alone_need_no_second_reading() -> None:
    """What moves both models cancels in the ratio; the report still says it."""
    drift, said = drifting(1.0, 1.5, allowed=None)

    assert said == [None]
    remark = drift.remark(Reading(reading(), reading(1.5), 0.5))
    assert remark is not None
    assert "50% slower" in remark


def test_control_sets_what_counts_as_drift() -> None:
    """On a machine where processes of one model differ by 5%, 10% is nothing."""
    assert Drift(allowed=0.02, spread=0.05).moved(Reading(reading(), reading(), 0.1)) is None
    assert Drift(allowed=0.02, spread=0.05).moved(Reading(reading(), reading(), 0.2)) is not None


def test_verified_figure_carries_what_the_study_saw() -> None:
    """Fast at the end, slow for most of the search: a limit must hold through both."""
    drift, _ = drifting(1.0, 1.2, 1.21, 1.19, 1.2)

    assert drift.of("validation", reading(1.0), verifying=False) == pytest.approx(0.0, abs=1e-9)
    assert drift.of("validation", reading(1.0), verifying=True) == pytest.approx(0.2, abs=0.02)


def test_other_samples_have_a_reference_of_their_own() -> None:
    """Longer texts on the test split are no drift."""
    drift, _ = drifting(1.0, 1.0, 1.0)

    assert drift.of("test", reading(3.0), verifying=False) == 0.0
    drift.note("test", reading(3.0))
    assert drift.of("test", reading(3.3), verifying=False) == pytest.approx(0.1)


def halves(first_ms: float, second_ms: float) -> LatencyReading:
    """Half of the blocks at each speed."""
    whole = reading(1.0)
    speed = np.where(whole.block < 10, first_ms, second_ms)
    return replace(whole, latency_s=whole.latency_s * speed)


def test_ratio_that_changed_while_it_was_measured_is_no_figure() -> None:
    """Something hit one of the two models alone."""
    said = swing(Reading(halves(1.0, 1.5), halves(1.0, 1.0), 0.0))

    assert said is not None
    assert "changed by 50%" in said


def test_drift_that_hits_both_models_is_no_swing() -> None:
    """That is what interleaving is for."""
    assert swing(Reading(halves(1.0, 1.5), halves(1.0, 1.5), 0.0)) is None


def test_swing_needs_enough_blocks_and_a_baseline() -> None:
    """A handful of blocks says nothing of halves."""
    few = reading(1.0, n=40, blocks=4)

    assert swing(Reading(few, few, 0.0)) is None
    assert swing(Reading(halves(1.0, 2.0), None, 0.0)) is None
