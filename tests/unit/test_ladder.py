"""The ladder of fallbacks below the winner."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.budget import Judgement
from autopilot.errors import Failure
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.finalists import Verification, Verified, verify, verify_one
from autopilot.search.ladder import MOST_LOST, MOST_RUNGS, MOST_TRIES, Light, Rung, _at_hand, climb, next_rung
from autopilot.search.ranking import Ranking
from autopilot.search.timetable import Timetable
from tests.unit.search_support import BUDGET, Facts, FakeEvaluator, Recorder, artifact_of, figures, setup_of, timetable

RANKING = Ranking("latency_p50_ms", maximize=False)


@st.composite
def lights(draw: st.DrawFn) -> list[Light]:
    """Candidates of any speed and loss."""

    def interval(largest: int) -> Interval:
        value, half = draw(st.integers(0, largest)) / 100, draw(st.integers(0, 10)) / 100
        return Interval(value, value - half, value + half)

    return [Light(i, interval(100), interval(40)) for i in range(draw(st.integers(0, 10)))]


@settings(deadline=None)
@given(lights(), st.integers(0, 120))
def test_next_rung_is_certainly_faster_and_nothing_as_fast_loses_certainly_less(
    candidates: list[Light], above: int
) -> None:
    """What a rung costs in quality buys speed; there is none only where none is certainly faster."""
    at = Interval(above / 100, above / 100 - 0.02, above / 100 + 0.02)
    faster = [c for c in candidates if c.speed.high < at.low]

    found = next_rung(candidates, at)

    assert (found is None) == (not faster)
    if found is not None:
        assert found in faster
        rivals = [c for c in faster if c.speed.value <= found.speed.value and c is not found]
        assert not any(c.drop.high < found.drop.low for c in rivals)
        least = min(c.drop.value for c in faster)
        assert found.drop.value <= max(c.drop.high for c in faster if c.drop.value == least)


@settings(deadline=None)
@given(lights())
def test_ladder_goes_down_in_certain_steps(candidates: list[Light]) -> None:
    """Each rung's slow side is faster than the fast side of the rung above."""
    above, rungs = Interval(2.0, 1.9, 2.1), list[Light]()
    while (found := next_rung(candidates, above)) is not None:
        rungs.append(found)
        above = found.speed

    speeds = [Interval(2.0, 1.9, 2.1), *(r.speed for r in rungs)]
    assert all(lower.high < upper.low for upper, lower in itertools.pairwise(speeds))


# ---- with verification ------------------------------------------------------------------------------


def record(number: int, facts: Facts, state: TrialState = TrialState.COMPLETE) -> TrialRecord:
    steps = (Step("int8", params_of({"n": number})),) if number else ()
    variant = Variant(Recipe(steps), setup_of(Path()).space.default_deployment())
    measured = figures(facts, later=False)
    return TrialRecord(
        id=variant.id,
        number=number,
        state=state,
        failure=None,
        reason="",
        stage="quality",
        variant=variant,
        measured=measured,
        verdict=BUDGET.judge(measured),
        artifact=artifact_of(variant.recipe),
    )


def climbed(
    folder: Path, facts: list[Facts], *, time: Timetable | None = None, quality: float | None = None
) -> tuple[tuple[Rung, ...], Verification, FakeEvaluator]:
    """The ladder below the best of ``facts``."""

    def world(variant: Variant) -> Facts:
        return facts[int(dict(variant.recipe.steps[0].params)["n"]) if variant.recipe.steps else 0]

    evaluator: Any = FakeEvaluator(setup_of(folder), Recorder(), world)
    evaluator.measure_baseline()
    if quality is not None:
        evaluator.baseline.measured["quality"] = Measurement("quality", quality, quality, quality, 600)
    records = [record(i, f) for i, f in enumerate(facts)]
    verification = verify(evaluator, records, RANKING, timetable=timetable())
    winner = next(v for v in verification.done if v.holds)
    rungs, after = climb(evaluator, records, winner, RANKING, verification, timetable=time or timetable())
    return rungs, after, evaluator


def numbers(rungs: tuple[Rung, ...]) -> list[int]:
    return [r.found.record.number if isinstance(r.found, Verified) else r.found.number for r in rungs]


def test_fallbacks_may_break_the_limit_on_quality_and_no_other(tmp_path: Path) -> None:
    """Degrading means to lose quality; a model that breaks another limit helps nobody."""
    facts = [Facts(1.0), Facts(0.5), Facts(0.4, drop=0.03), Facts(0.2, drop=0.08)]
    records = [record(i, f) for i, f in enumerate(facts)]
    assert records[2].verdict is not None
    assert records[2].verdict.overall is Judgement.OUT

    rungs, after, _ = climbed(tmp_path, facts)

    assert numbers(rungs) == [2, 3]
    assert all(isinstance(r.found, Verified) for r in rungs)
    assert {v.record.number for v in after.more} == {2, 3}
    assert "1.25 times as fast as trial 1 on latency_p50_ms" in rungs[0].reason
    assert "quality loss 0.03 (" in rungs[0].reason


def test_slower_or_as_fast_is_no_fallback(tmp_path: Path) -> None:
    """A tie in speed would lose quality for nothing."""
    rungs, _, _ = climbed(tmp_path, [Facts(1.0), Facts(0.5), Facts(0.495, drop=0.03), Facts(0.55, drop=0.03)])

    assert rungs == ()


def test_rungs_that_fall_short_when_measured_again_are_passed_over(tmp_path: Path) -> None:
    """The same honesty as for the winner: a crash, or a speed that was luck, is no rung."""
    facts = [Facts(1.0), Facts(0.5), Facts(0.4, drop=0.03, failure_later=Failure.CRASH), Facts(0.3, drop=0.05)]

    rungs, after, _ = climbed(tmp_path, facts)

    assert numbers(rungs) == [3]
    assert set(after.failed) == {2}


def test_rungs_without_time_are_as_the_search_found_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told apart from those that were measured again."""
    monkeypatch.chdir(tmp_path)
    facts = [Facts(1.0), Facts(0.5), Facts(0.4, drop=0.03)]
    artifact_of(record(2, facts[2]).variant.recipe).path.touch()
    rungs, after, evaluator = climbed(tmp_path, facts, time=timetable(late=True))

    assert numbers(rungs) == [2]
    assert isinstance(rungs[0].found, TrialRecord)
    assert after.more == ()
    assert (record(2, Facts()).id, True) not in evaluator.asked


@pytest.mark.parametrize(("left_s", "found"), [(-1.0, [3]), (0.5, [2, 3])], ids=["no time", "time to build it"])
def test_rung_whose_model_is_not_here_is_built_again_or_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_s: float, found: list[int]
) -> None:
    """Another machine of the study has it, or the cache let go of it: its file can't be copied."""
    monkeypatch.chdir(tmp_path)
    facts = [Facts(1.0), Facts(0.5), Facts(0.4, drop=0.03), Facts(0.2, drop=0.05)]
    artifact_of(record(3, facts[3]).variant.recipe).path.touch()
    time = Timetable(lambda record: 1.0, left_s, late_s=0.0, clock=lambda: 0.0)

    rungs, _, evaluator = climbed(tmp_path, facts, time=time)

    assert numbers(rungs) == found
    assert any("trial 2 is no fallback: its model isn't here" in n for n in evaluator.observer.notes) == (left_s < 0)


def test_model_as_given_is_always_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's record names where it lies there; in another deployment it may be a rung."""
    monkeypatch.chdir(tmp_path)
    evaluator: Any = FakeEvaluator(setup_of(tmp_path), Recorder(), lambda v: Facts(1.0))

    found = _at_hand(evaluator, record(0, Facts(1.0)), timetable(late=True))

    assert found is not None
    assert found.artifact == artifact_of(Recipe())


def test_variant_that_lost_half_of_its_quality_is_no_fallback(tmp_path: Path) -> None:
    """Speed of a model that answers nothing is worth nothing."""
    facts = [Facts(1.0), Facts(0.5), Facts(0.2, drop=MOST_LOST * 0.8 + 0.01), Facts(0.3, drop=0.2)]

    assert numbers(climbed(tmp_path, facts, quality=0.8)[0]) == [3]


def test_ladder_ends_after_a_few_rungs_and_a_few_failures(tmp_path: Path) -> None:
    """Time is bounded, however many candidates there are."""
    many = [Facts(1.0), Facts(0.59, noise=0.001), *(Facts(0.5 - i / 25, 0.02 + i / 50, noise=0.001) for i in range(8))]
    assert len(climbed(tmp_path, many)[0]) == MOST_RUNGS
    failing = [*many[:2], *(replace(f, failure_later=Failure.CRASH) for f in many[2:])]
    rungs, after, _ = climbed(tmp_path, failing)
    assert rungs == ()
    assert len(after.failed) == MOST_TRIES


def test_verified_rung_is_not_measured_twice(tmp_path: Path) -> None:
    """A finalist that lost its place by its quality alone takes its figures along."""
    facts = [Facts(1.0), Facts(0.5), Facts(0.3, drop=0.0, drop_later=0.05)]

    rungs, after, evaluator = climbed(tmp_path, facts)

    assert numbers(rungs) == [2]
    assert after.more == ()
    assert [a for a in evaluator.asked if a[1]].count((record(2, Facts()).id, True)) == 1


def test_verify_one_keeps_the_readings(tmp_path: Path) -> None:
    """A verdict on a fallback can be computed again, as a finalist's can."""
    evaluator: Any = FakeEvaluator(setup_of(tmp_path), Recorder(), lambda variant: Facts())
    evaluator.measure_baseline()

    verify_one(evaluator, record(2, Facts()), timetable())

    assert (tmp_path / "samples" / "2-verify-waiting.npz").is_file()
