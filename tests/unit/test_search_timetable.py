"""The end of a study: what measuring finalists again should take, what is kept free for it, and how late it may end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.artifact import Artifact
from autopilot.bench import rounds
from autopilot.budget import Budget, Limit
from autopilot.errors import Failure
from autopilot.profile import LatencyReading, Measurement
from autopilot.recipe import Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search import conclude as conclude_module
from autopilot.search.finalists import MOST_LATE, Verification, verify
from autopilot.search.outcome import SCREENING, SLOW_SHARE, VERIFYING, Effort, Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.reserve import FIRST_SHARE, KEPT_SHARE, Seen, building_s, reserve_s, verifying_s
from autopilot.search.timetable import LATE_SHARE, Timetable, overrun
from autopilot.search.timing import plan_of
from autopilot.spec import SearchSpec
from tests.unit.search_support import Facts, FakeEvaluator, Recorder, artifact_of, finished, setup_of

RANKING = Ranking("latency_p50_ms", maximize=False)
P99 = Budget((Limit("latency_p99_ms", 70.0),))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def figures(p50_ms: float, p99: tuple[float, float, float], load_s: float = 1.0) -> dict[str, Measurement]:
    return {
        "load_s": Measurement("load_s", load_s, load_s, load_s, 1),
        "latency_p50_ms": Measurement("latency_p50_ms", p50_ms, p50_ms, p50_ms, 99),
        "latency_p99_ms": Measurement("latency_p99_ms", *p99, 99),
    }


def baseline_of(p50_ms: float = 60.0, **seconds: float) -> Outcome:
    variant = Variant(Recipe(), setup_of(Path()).space.default_deployment())
    measured = figures(p50_ms, (1.1 * p50_ms, 0.0, math.inf))
    return Outcome(variant, artifact_of(Recipe()), measured, seconds={"load": 2.0, "profile": 9.0, **seconds})


def record(number: int, p50_ms: float, p99: tuple[float, float, float], **seconds: float) -> TrialRecord:
    steps = (Step("slim", params_of({"n": number})),)
    variant = Variant(Recipe(steps), setup_of(Path()).space.default_deployment())
    measured = figures(p50_ms, p99)
    verdict = P99.judge(measured)
    return TrialRecord(
        variant.id, number, TrialState.COMPLETE, None, "", "quality", variant, measured, verdict, seconds=seconds
    )


OPEN, DECIDED = (66.0, 0.0, math.inf), (11.0, 10.0, 12.0)


def taken(
    setup: Any, mine: Seen, beside: Seen, clock: Clock, monkeypatch: pytest.MonkeyPatch, decided_s: float
) -> None:
    """Let ``clock`` pass as the latency pass really goes: rounds of fresh processes until ``decided_s`` were read."""
    monkeypatch.setattr(rounds.time, "monotonic", clock)
    read_s = 0.0

    @contextmanager
    def servers() -> Iterator[Any]:
        clock.now_s += mine.start_s + beside.start_s
        yield mine, beside

    def measure(candidate: Any, baseline: Any, *, decided: Any, cap_s: float) -> Any:
        nonlocal read_s
        one = LatencyReading(np.ones(40), np.repeat(np.arange(10, dtype=np.int32), 4), np.ones(10), np.ones(10))
        clock.now_s += cap_s
        read_s += cap_s
        decided(one, one)
        return one, one

    rounds.measure_rounds(
        servers,
        plan=lambda pair: plan_of(setup, VERIFYING, pair),
        decided=lambda *found: read_s >= decided_s,
        measure=measure,
    )


@pytest.mark.parametrize("p50_ms", [0.5, 20.0, 60.0, 400.0])
@pytest.mark.parametrize("timeout_s", [60.0, 900.0, 3600.0])
def test_expected_seconds_are_those_of_the_rounds_that_are_really_taken(
    p50_ms: float, timeout_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A p99 that no trial could bound is read to the cap, in rounds of fresh processes: each is started and warmed."""
    setup = setup_of(tmp_path, budget=P99, search=SearchSpec(timeout_s=timeout_s))
    trial = record(1, p50_ms, OPEN)
    clock, baseline = Clock(), baseline_of(p50_ms)
    expected = verifying_s(setup, trial, baseline)
    taken(setup, Seen.of(trial, setup), Seen.of(baseline, setup), clock, monkeypatch, decided_s=math.inf)

    # What is started beyond the cap is one round more or less.
    plan = plan_of(setup, VERIFYING, (Seen.of(trial, setup), Seen.of(baseline, setup)))
    one_s = plan.round_s + 2 * Seen.of(baseline, setup).start_s
    assert abs(expected - clock()) <= one_s


def test_slow_model_with_a_p99_limit_is_given_the_time_that_its_percentile_takes(tmp_path: Path) -> None:
    """60 ms a request: what the baseline's own pass took says nothing of the 552 pairs of requests that are needed."""
    setup = setup_of(tmp_path, budget=P99, search=SearchSpec(timeout_s=3600.0))
    baseline = baseline_of()

    found = verifying_s(setup, record(1, 60.0, OPEN), baseline)

    assert found > 1.5 * 368 * 0.12
    assert found > 4 * baseline.seconds["profile"]


def test_decided_limit_needs_the_planned_rounds_alone(tmp_path: Path) -> None:
    """Half a minute for each of two small models would be half of a short study."""
    setup = setup_of(tmp_path, budget=P99, search=SearchSpec(timeout_s=3600.0))
    quick = verifying_s(setup, record(1, 1.0, DECIDED), baseline_of(1.0))

    assert quick < 30.0 < verifying_s(setup, record(1, 1.0, OPEN), baseline_of(1.0))


def test_expected_seconds_follow_what_the_trial_took(tmp_path: Path) -> None:
    """Its own load and score, what a cache saved included, and its first runs in each round, on both sides."""
    setup = setup_of(tmp_path, budget=P99)  # 600 samples to validate, 300 held back

    def expected(baseline: Outcome, **seconds: float) -> float:
        return verifying_s(setup, record(1, 1.0, DECIDED, **seconds), baseline)

    plain = expected(baseline_of(1.0))
    assert expected(baseline_of(1.0), load=20.0) == pytest.approx(plain + 20.0)
    assert expected(baseline_of(1.0), evaluate=1.0, evaluate_saved=79.0) == pytest.approx(plain + 40.0)
    # Of two meetings: once where memory is read, and once a round.
    assert expected(baseline_of(1.0), shapes=20.0) >= plain + (1 + 3) * 10.0
    assert expected(baseline_of(1.0, shapes=20.0)) >= plain + 3 * 10.0


def test_scheduled_traffic_is_expected_by_its_windows(tmp_path: Path) -> None:
    """Windows have a length of their own; a baseline that is overloaded waits without end, which is no length."""
    setup = setup_of(tmp_path, budget=P99, scenario="server", search=SearchSpec(timeout_s=900.0))
    overloaded = baseline_of(math.inf)

    found = verifying_s(setup, record(1, 5.0, DECIDED), overloaded)

    assert 10.0 < found < SLOW_SHARE * 900.0 + 60.0
    asked = replace(setup, problem=replace(setup.problem, objective="max_rate_rps"))
    assert verifying_s(asked, record(1, 5.0, DECIDED), overloaded) == pytest.approx(found + 90.0)


def test_reserve_follows_the_best_two_so_far(tmp_path: Path) -> None:
    """Before anything fits the baseline stands for them; a fast variant costs what it costs."""
    setup = setup_of(tmp_path, budget=P99, search=SearchSpec(timeout_s=36000.0))
    baseline = baseline_of(60.0, evaluate=20.0)
    first, second = record(1, 10.0, DECIDED, evaluate=4.0), record(2, 20.0, (21.0, 20.0, 22.0), evaluate=4.0)

    before = reserve_s(setup, [], RANKING, baseline)
    after = reserve_s(setup, [first, second], RANKING, baseline)

    assert after < before
    both = verifying_s(setup, first, baseline) + verifying_s(setup, second, baseline)
    assert after == pytest.approx(both + 10.0 + 5.0)  # the baseline's score on half as many samples; then the writing


@pytest.mark.parametrize("timeout_s", [30.0, 200.0, 900.0, 3600.0])
def test_reserve_leaves_time_to_search(timeout_s: float, tmp_path: Path) -> None:
    """Two finalists get at most 40% of it, the first alone at most 60%."""
    setup = setup_of(tmp_path, budget=P99, search=SearchSpec(timeout_s=timeout_s))
    baseline = baseline_of()
    found = reserve_s(setup, [], RANKING, baseline)
    first_s = verifying_s(setup, baseline, baseline) + 5.0

    assert found <= FIRST_SHARE * timeout_s
    assert found >= min(first_s, FIRST_SHARE * timeout_s) - 1e-9
    assert found <= max(KEPT_SHARE * timeout_s, first_s) + 1e-9


# ---- what there is time for ------------------------------------------------------------------------


def test_what_finalists_took_corrects_what_is_expected() -> None:
    """The first was expected to take 100 s and took 150: the next one's 200 are taken for 300."""
    expected = {1: 100.0, 2: 200.0}
    clock = Clock()
    timetable = Timetable(lambda r: expected[r.number], deadline=450.0, late_s=0.0, clock=clock)
    first, second = record(1, 10.0, DECIDED), record(2, 10.0, DECIDED)
    assert timetable.expected_s(second) == 200.0
    clock.now_s = 150.0
    timetable.took(first, 150.0)

    assert timetable.expected_s(second) == 300.0
    assert timetable.has_for(second)
    clock.now_s = 151.0
    assert not timetable.has_for(second)
    assert "trial 2 again should take 300 s, and 299 s are left" in timetable.lack(second)


class SlowEvaluator(FakeEvaluator):
    """Each second measurement takes ``slow_s`` of ``clock``."""

    clock: Clock
    slow_s: float

    def measure(self, variant: Variant, artifact: Artifact, effort: Effort = VERIFYING, **more: Any) -> Outcome:
        outcome = super().measure(variant, artifact, effort, **more)
        self.clock.now_s += self.slow_s
        outcome.seconds = {"profile": self.slow_s, "evaluate_saved": 1e9}
        return outcome


def ended(
    folder: Path, facts: list[Facts], *, slow_s: float, expected_s: float, left_s: float, timeout_s: float = 1000.0
) -> tuple[float, Verification, Recorder]:
    """How long after (before: negative) the deadline verification ended, what it came to, and what was said."""

    def world(variant: Variant) -> Facts:
        return facts[int(dict(variant.recipe.steps[0].params)["n"])] if variant.recipe.steps else Facts(1.0)

    said, clock = Recorder(), Clock()
    evaluator: Any = SlowEvaluator(setup_of(folder, search=SearchSpec(timeout_s=timeout_s)), said, world)
    evaluator.clock, evaluator.slow_s = clock, slow_s
    evaluator.measure_baseline()
    records = []
    for number in range(len(facts)):
        variant = Variant(Recipe((Step("slim", params_of({"n": number})),)), evaluator.setup.given.deployment)
        outcome = FakeEvaluator.measure(evaluator, variant, artifact_of(variant.recipe))
        records.append(finished(number, variant, outcome.measured, evaluator.verdict(outcome)))
    timetable = Timetable(lambda r: expected_s, left_s, LATE_SHARE * timeout_s, clock)
    found = verify(evaluator, records, RANKING, timetable=timetable)
    return clock() - left_s, found, said


TIES = [Facts(0.40), Facts(0.405), Facts(0.41)]


def test_tie_that_could_not_be_measured_in_time_is_left_out_and_told(tmp_path: Path) -> None:
    """With 130 s left after a finalist that held, one of 100 s was begun and ended in time; another isn't begun."""
    late_s, found, said = ended(tmp_path, TIES, slow_s=100.0, expected_s=100.0, left_s=230.0)

    assert len(found.done) == 2
    assert late_s == -30.0
    assert said.notes == ["measuring trial 2 again should take 100 s, and 30 s are left: it is left out"]


def test_finalist_that_takes_longer_than_expected_makes_the_next_be_left_out(tmp_path: Path) -> None:
    """Two were to take 100 s each; the first took 180 of 300: another of 180 would end late."""
    late_s, found, _ = ended(tmp_path, TIES, slow_s=180.0, expected_s=100.0, left_s=300.0)

    assert len(found.done) == 1
    assert late_s == -120.0


def test_first_finalist_is_measured_whatever_the_time_is_and_that_is_told(tmp_path: Path) -> None:
    """Without it the whole search was for nothing."""
    late_s, found, said = ended(tmp_path, TIES, slow_s=400.0, expected_s=400.0, left_s=50.0)

    assert (len(found.done), late_s) == (1, 350.0)
    assert "the study ends late, since no finalist is shown to hold yet" in said.notes[0]


@pytest.mark.parametrize("slow_s", [10.0, 90.0, 150.0, 500.0])
def test_finalists_that_fail_make_the_study_late_by_a_fifth_of_its_time_at_most(slow_s: float, tmp_path: Path) -> None:
    """After the first, which has to be; and never for more than a few."""
    failing = [Facts(0.4 + i / 1000, drop_later=0.5) for i in range(6)]
    late_s, found, _ = ended(tmp_path, failing, slow_s=slow_s, expected_s=slow_s, left_s=0.0)

    assert 1 <= len(found.done) <= MOST_LATE
    assert late_s <= max(slow_s, LATE_SHARE * 1000.0)


@pytest.mark.parametrize(("left_s", "attempts"), [(1000.0, 2), (0.0, 1)])
def test_finalist_that_hangs_late_is_not_tried_again(
    left_s: float, attempts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second step_timeout would only make it later."""
    asked: list[Effort] = []
    measure = FakeEvaluator.measure

    def counted(self: Any, variant: Variant, artifact: Artifact, effort: Effort = SCREENING, **more: Any) -> Any:
        asked.append(effort)
        return measure(self, variant, artifact, effort, **more)

    monkeypatch.setattr(FakeEvaluator, "measure", counted)
    ended(tmp_path, [Facts(0.4, failure_later=Failure.TIMEOUT)], slow_s=1.0, expected_s=1.0, left_s=left_s)

    assert asked.count(VERIFYING) == attempts


def test_study_that_took_longer_than_its_timeout_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the result's warnings, with the part that the search took; a few seconds are not worth a line."""
    clock = Clock(700.0)
    monkeypatch.setattr(conclude_module, "time", type("Time", (), {"monotonic": staticmethod(clock)}))
    monkeypatch.setattr(conclude_module, "write_outputs", lambda result, out, artifact, **more: result)
    evaluator: Any = SlowEvaluator(
        setup_of(tmp_path, search=SearchSpec(timeout_s=900.0)), Recorder(), lambda variant: Facts(0.4)
    )
    evaluator.clock, evaluator.slow_s = clock, 400.0
    baseline = evaluator.measure_baseline()
    verdict = evaluator.verdict(baseline)
    own = TrialRecord(
        baseline.variant.id,
        0,
        TrialState.COMPLETE,
        None,
        "",
        "quality",
        baseline.variant,
        baseline.measured,
        verdict,
        artifact=baseline.artifact,
    )
    result = conclude_module.conclude(evaluator, [own], RANKING, started=0.0, deadline=900.0, out=tmp_path)

    assert result.elapsed_s == 1100.0
    after = "the search ended after 11m40s, and what came after it took 6m40s"
    assert result.warnings == (f"the study took 18m20s for its timeout of 15m: {after}",)
    assert overrun(900.0, 700.0, 900.0 + 45.0) == ()
    assert overrun(60.0, 60.0, 65.0) == ()


def test_model_that_is_not_here_counts_as_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that another machine of the study made takes as long here, before its variant can be measured."""
    monkeypatch.chdir(tmp_path)
    trained = record(3, 20.0, DECIDED, build=200.0, build_saved=100.0)
    trained = replace(trained, artifact=artifact_of(trained.variant.recipe))
    given = replace(trained, variant=Variant(Recipe(), trained.variant.deployment))
    evaluator: Any = FakeEvaluator(setup_of(tmp_path), Recorder(), lambda v: Facts(0.5))
    evaluator.measure_baseline()
    expected = conclude_module._timetable(evaluator, 0.0).expected
    elsewhere_s = expected(trained)
    assert trained.artifact is not None
    trained.artifact.path.touch()

    assert elsewhere_s - expected(trained) == pytest.approx(300.0)
    assert building_s(given) == building_s(trained) == 0.0
