"""From records to a result: which status, which nearest miss, what is said."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autopilot.budget import Budget, Judgement, Limit, Verdict
from autopilot.display.tables import render_result
from autopilot.errors import Failure, VariantFailed
from autopilot.needs import Lack
from autopilot.profile import Interval, Measurement, OperatorCost, OperatorTable, Profile
from autopilot.recipe import Recipe, Step, Variant, params_of
from autopilot.report.content import Content
from autopilot.report.points import Mark, mark_of
from autopilot.report.sections.verdict import sentence
from autopilot.result import (
    NO_TIME_LEFT,
    TIME_UP,
    Status,
    StudyResult,
    TrialRecord,
    TrialState,
    cut_off_text,
    trial_rows,
)
from autopilot.search import conclude as module
from autopilot.search import decide
from autopilot.search.explain import explain
from autopilot.search.finalists import MOST_LATE, Verification, line_up, verify
from autopilot.search.outcome import Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.rejudge import rejudge
from autopilot.search.reported import speedup
from autopilot.search.reserve import KEPT_SHARE
from autopilot.search.too_short import least_timeout_s
from tests.unit.search_support import BUDGET, Facts, FakeEvaluator, Recorder, artifact_of, figures, setup_of, timetable

RANKING = Ranking("latency_p50_ms", maximize=False)
Later = Callable[[int], Facts]


def record(number: int, facts: Facts, state: TrialState = TrialState.COMPLETE) -> TrialRecord:
    steps = (Step("int8", params_of({"n": number})),) if number else ()
    variant = Variant(Recipe(steps), setup_of(Path()).space.default_deployment())
    measured = figures(facts, later=False)
    if state is TrialState.PRUNED:
        del measured["quality_drop"]
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


def evaluator_of(folder: Path, facts: list[Facts]) -> FakeEvaluator:
    def world(variant: Variant) -> Facts:
        return facts[int(dict(variant.recipe.steps[0].params)["n"]) if variant.recipe.steps else 0]

    evaluator = FakeEvaluator(setup_of(folder), Recorder(), world)
    evaluator.measure_baseline()
    return evaluator


def concluded(
    folder: Path,
    facts: list[Facts],
    monkeypatch: pytest.MonkeyPatch,
    *,
    pruned: tuple[int, ...] = (),
    late: bool = False,
    ended: str = "",
    cut_off_s: float = 0.0,
) -> StudyResult:
    monkeypatch.setattr(module, "write_outputs", lambda result, out, artifact, **more: result)
    records = [record(i, f, TrialState.PRUNED if i in pruned else TrialState.COMPLETE) for i, f in enumerate(facts)]
    evaluator: Any = evaluator_of(folder, facts)
    deadline = time.monotonic() - 1.0 if late else math.inf
    return module.conclude(
        evaluator,
        records,
        RANKING,
        started=0.0,
        deadline=deadline,
        out=folder,
        ended=ended,
        cut_off_s=cut_off_s,
    )


def test_fastest_that_holds_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest that fails its second measurement leaves the place to the next."""
    result = concluded(tmp_path, [Facts(1.0), Facts(0.3, drop_later=0.02), Facts(0.4), Facts(0.5)], monkeypatch)

    assert result.status is Status.IN_BUDGET
    assert result.best is not None
    assert result.best.number == 2
    assert [t.stage for t in result.trials] == ["quality", "verify", "verify", "quality"]
    assert "1 did not hold: quality_drop (1)" in result.explanation


def test_finalist_that_crashes_when_measured_again_is_no_nearest_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its screening verdict, all in, is not what it came to."""
    facts = [Facts(0.7), Facts(0.3, failure_later=Failure.CRASH)]
    result = concluded(tmp_path, facts, monkeypatch)

    assert result.status is Status.NO_FIT
    assert result.nearest is not None
    assert result.nearest.number == 0
    assert result.trials[1].reason == "failed when measured again: crash: simulated."
    assert mark_of(result.trials[1]) is Mark.FAILED
    judged = rejudge(result, BUDGET)
    assert judged.best is None
    assert 1 not in judged.verdicts


def test_finalist_that_the_machine_spoilt_leaves_the_study_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept every limit in the search, and its second reading is none: "nothing fits" would be wrong."""
    facts = [Facts(0.7), Facts(0.3, failure_later=Failure.UNSTABLE)]
    result = concluded(tmp_path, facts, monkeypatch)

    assert result.status is Status.UNDECIDED
    assert "Trial 1 failed when it was measured again (unstable: simulated)" in result.explanation
    assert mark_of(result.trials[1]) is Mark.UNDECIDED
    judged = rejudge(result, BUDGET)
    assert judged.best is not None
    assert (judged.best.number, judged.verified) == (1, False)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_trial_that_the_machine_spoilt_leaves_the_study_undecided_whenever_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It may fit as well as any; that the search went on after it tells nothing of it."""
    facts = [Facts(1.0)] * 4
    records = [record(i, f) for i, f in enumerate(facts)]
    records[number] = replace(
        records[number], state=TrialState.FAILED, failure=Failure.UNSTABLE, measured={}, verdict=None, artifact=None
    )
    evaluator: Any = evaluator_of(tmp_path, facts)

    found = decide.decide(evaluator, records, RANKING, timetable=timetable(), ended="all 4 trials were run")

    assert found.status is Status.UNDECIDED


def test_near_miss_that_the_machine_spoilt_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It broke a limit for certain in the search."""
    facts = [Facts(1.0), Facts(0.9, failure_later=Failure.UNSTABLE)]
    result = concluded(tmp_path, facts, monkeypatch)

    assert result.trials[1].stage == "verify"
    assert mark_of(result.trials[1]) is Mark.OUT
    assert result.status is Status.NO_FIT


def test_finalists_there_was_no_time_for_leave_the_study_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was shown to fit, but "nothing fits" would be wrong: a screened variant kept every limit."""
    facts = [Facts(1.0), *(Facts(0.3 + i / 100, drop_later=0.5) for i in range(MOST_LATE)), Facts(0.5)]
    result = concluded(tmp_path, facts, monkeypatch, late=True)

    assert result.status is Status.UNDECIDED
    assert result.nearest is not None
    assert result.nearest.number == len(facts) - 1
    assert "no time left to verify" in result.explanation
    with_time = concluded(tmp_path, facts, monkeypatch)
    assert with_time.best is not None
    assert with_time.best.number == len(facts) - 1


def test_time_up_ends_verification_as_soon_as_one_holds(tmp_path: Path) -> None:
    """A tie is worth another measurement only while there is time."""
    facts = [Facts(1.0), Facts(0.40), Facts(0.41), Facts(0.42)]
    records = [record(i, f) for i, f in enumerate(facts)]
    late: Any = evaluator_of(tmp_path, facts)
    early: Any = evaluator_of(tmp_path, facts)

    assert len(verify(late, records, RANKING, timetable=timetable(late=True)).done) == 1
    assert len(verify(early, records, RANKING, timetable=timetable()).done) > 1


def test_variant_given_up_is_verified_when_the_better_ones_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not scored since others were faster; when they turn out not to hold it has its chance."""
    facts = [Facts(1.0), Facts(0.3, drop_later=0.5), Facts(0.5)]
    result = concluded(tmp_path, facts, monkeypatch, pruned=(2,))

    assert result.best is not None
    assert result.best.number == 2


def test_everything_certainly_out_is_no_fit_with_the_smallest_violation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest miss is the one that least needs to be forgiven."""
    result = concluded(tmp_path, [Facts(1.0), Facts(0.9), Facts(0.8)], monkeypatch)

    assert result.status is Status.NO_FIT
    assert result.nearest is not None
    assert result.nearest.number == 2
    assert "would admit trial 2" in result.explanation


@pytest.mark.parametrize("ended", [f"{TIME_UP}, but for 4 s to measure the finalists again", TIME_UP, NO_TIME_LEFT])
def test_study_whose_time_was_up_before_any_variant_is_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    """Nothing was tried, so nothing is known not to fit; it says what took the time and how much there should be."""
    result = concluded(tmp_path, [Facts(1.0)], monkeypatch, ended=ended)

    assert result.status is Status.UNDECIDED
    assert result.exit_code == 4
    assert "No variant was tried: preparing the study and measuring the baseline" in result.explanation
    assert "give search.timeout (--timeout)" in result.explanation
    assert "turned" not in result.explanation
    assert [gap.missing for gap in result.not_tried] == [Lack.SEARCH, Lack.SEARCH]
    shown = StringIO()
    Console(file=shown, width=80).print(render_result(result.to_json()))
    assert "simulated: UNDECIDED" in shown.getvalue()
    assert "no variant was tried" in shown.getvalue()
    assert sentence(Content(result)).startswith("Undecided: no variant was tried")


def test_trial_that_was_cut_off_is_told_apart_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its seconds are its own, and the timeout that is advised would not cut it off the same way."""
    ended = f"{TIME_UP}{cut_off_text('slim on cpu, 2 threads', 400.0)}"
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 500.0))
    result = concluded(tmp_path, [Facts(1.0)], monkeypatch, ended=ended, cut_off_s=400.0)

    assert result.status is Status.UNDECIDED
    assert "took 100 s of its 600 s, and the trial of slim on cpu, 2 threads was cut off after 400 s." in (
        result.explanation
    )
    assert "Such a trial takes more than 400 s here" in result.explanation
    assert "(--timeout) 1500 s or more" in result.explanation  # 100 s, twice 400 s, and 40% for the finalists
    assert next(gap.reason for gap in result.not_tried).startswith("no trial of it came to its end: time is up")
    shown = StringIO()
    Console(file=shown, width=200).print(render_result(result.to_json()))
    assert "no variant came to its end, time was up with the first trial" in shown.getvalue()
    assert sentence(Content(result)) == (
        "Undecided: no variant came to its end, since time was up during the first trial."
    )
    for text in (result.explanation, shown.getvalue(), sentence(Content(result))):
        assert "o variant was tried" not in text


@pytest.mark.parametrize(
    ("facts", "ended"),
    [([Facts(1.0), Facts(0.9)], TIME_UP), ([Facts(1.0)], "every variant of this space was tried")],
    ids=["a variant was tried", "there was none to try"],
)
def test_study_that_tried_what_it_could_has_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: list[Facts], ended: str
) -> None:
    """Time that ran out later, or a space without variants, change nothing: nothing fits."""
    result = concluded(tmp_path, facts, monkeypatch, ended=ended)

    assert result.status is Status.NO_FIT
    assert "No variant was tried" not in result.explanation


@given(st.floats(0, 1e4), st.floats(0.1, 1e4), st.floats(0, 1e4))
def test_timeout_that_is_named_leaves_a_trial_its_turn(used_s: float, trial_s: float, first_s: float) -> None:
    """Whatever is then kept for the finalists: their share of it at most, or what the first takes."""
    timeout_s = least_timeout_s(used_s, trial_s, first_s)

    assert timeout_s - max(first_s, KEPT_SHARE * timeout_s) >= used_s + trial_s - 1e-6
    assert timeout_s % 10 == 0


def test_baseline_that_misses_is_not_called_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit past the baseline's own figure asks for nothing."""
    result = concluded(tmp_path, [Facts(1.0)], monkeypatch, ended="every variant of this space was tried")

    assert result.relaxations == ()
    assert "nothing came nearer than the baseline itself, which misses latency_p50_ms" in result.explanation
    assert "no better than the baseline" not in result.explanation
    assert "admit" not in result.explanation


def nearest_written(folder: Path, evaluator: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[StudyResult, Any]:
    """The result where no finalist was verified, and the artifact that was given to be copied."""
    given: list[Any] = []
    monkeypatch.setattr(module, "write_outputs", lambda result, out, artifact, **more: given.append(artifact) or result)
    old = replace(artifact_of(Recipe()), path=folder / "gone.onnx")
    records = [record(0, Facts(1.0)), replace(record(1, Facts(0.9)), artifact=old)]
    monkeypatch.setattr(decide, "verify", lambda *_, **__: Verification())
    result = module.conclude(evaluator, records, RANKING, started=0.0, deadline=math.inf, out=folder)
    return result, given[0]


def test_nearest_miss_of_an_interrupted_run_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache may have let go of its file since: what is copied is what is there now."""
    evaluator: Any = evaluator_of(tmp_path, [Facts(1.0), Facts(0.9)])

    result, artifact = nearest_written(tmp_path, evaluator, monkeypatch)

    assert result.nearest is not None
    assert result.nearest.number == 1
    assert artifact == artifact_of(Recipe((Step("int8", params_of({"n": 1})),)))


def test_nearest_miss_that_can_not_be_built_again_is_reported_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures stand; the note says why there is no model."""
    evaluator: Any = evaluator_of(tmp_path, [Facts(1.0), Facts(0.9)])

    def fail(recipe: Recipe, seconds: dict[str, float]) -> None:
        raise VariantFailed(Failure.TIMEOUT, "too slow.")

    evaluator.build = fail

    result, artifact = nearest_written(tmp_path, evaluator, monkeypatch)

    assert artifact is None
    assert result.nearest is not None
    assert "couldn't be built again: too slow." in evaluator.observer.notes[-1]


def test_noise_around_the_bound_is_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in nor out, measured twice."""
    result = concluded(tmp_path, [Facts(1.0), Facts(0.6, noise=0.05)], monkeypatch)

    assert result.status is Status.UNDECIDED
    assert result.nearest is not None
    assert result.nearest.verdict is not None
    assert result.nearest.verdict.overall is Judgement.UNDECIDED
    assert "is undecided on latency_p50_ms" in result.explanation


def test_line_up_leaves_out_what_broke_a_limit_for_certain() -> None:
    """Given-up variants come last, certain violations not at all."""
    records = [
        record(1, Facts(0.5), TrialState.PRUNED),
        record(2, Facts(0.9), TrialState.PRUNED),
        record(3, Facts(0.6, noise=0.05)),
        record(4, Facts(0.5)),
    ]

    assert [r.number for r in line_up(records, RANKING)] == [4, 3, 1]


def test_explanation_of_an_unbounded_percentile_says_what_is_missing() -> None:
    """A limit of infinity would be no advice."""
    limit = Limit("latency_p99_ms", 50.0)
    how = "150 requests of 1 in 38 blocks; an upper bound needs 368 independent requests"
    measured = {"latency_p99_ms": Measurement("latency_p99_ms", 40.0, 0.0, math.inf, 150, how)}
    budget = Budget((limit,))
    text = explain([], budget, status="undecided", left_out={}, nearest=(measured, budget.judge(measured)))

    assert "inf" not in text
    assert "an upper bound needs 368" in text
    assert "search.measure_cap" in text
    assert "lower percentile" in text


def test_explanation_of_overload_is_no_want_of_requests() -> None:
    """More requests came than were answered: no longer measurement would admit it."""
    budget = Budget((Limit("latency_p99_ms", 50.0),))
    how = "overload: 180 of 200 requests a second were answered"
    measured = {"latency_p99_ms": Measurement("latency_p99_ms", math.inf, math.inf, math.inf, 900, how)}
    text = explain([], budget, status="no_fit", left_out={}, nearest=(measured, budget.judge(measured)))

    assert f"misses latency_p99_ms <= 50: requests waited without end ({how})" in text
    assert "undecided" not in text


def test_explanation_of_a_limit_that_is_broken_for_certain_has_its_figure() -> None:
    """Though its interval has no upper end: 60 ms at the least is too much."""
    budget = Budget((Limit("latency_p99_ms", 50.0),))
    measured = {"latency_p99_ms": Measurement("latency_p99_ms", 70.0, 60.0, math.inf, 150)}
    text = explain([], budget, status="no_fit", left_out={}, nearest=(measured, budget.judge(measured)))

    assert "misses latency_p99_ms <= 50 at 70" in text
    assert "inf" not in text


def test_explanation_tells_a_broken_limit_from_an_undecided_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalist about which too little was seen did not fail."""
    facts = [Facts(1.0), Facts(0.3, drop_later=0.02), Facts(0.6, noise=0.05)]
    result = concluded(tmp_path, facts, monkeypatch)

    said = "measured again on held-back data, which decides, 1 did not hold: quality_drop (1) and 1 stayed undecided:"
    assert f"Of 2 finalists {said} latency_p50_ms (1)." in result.explanation


def test_search_and_second_measurement_are_counted_apart_and_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three in budget by the search, two of which the second look undid: each sentence says whose count it is."""
    facts = [Facts(1.0), Facts(0.3, drop_later=0.02), Facts(0.35, drop_later=0.02), Facts(0.4), Facts(0.9)]
    result = concluded(tmp_path, facts, monkeypatch)

    assert "5 trials, by the search's own figures: 3 in budget, 2 not." in result.explanation
    said = (
        "Of 3 finalists measured again on held-back data, which decides, 1 held and 2 did not hold: quality_drop (2)."
    )
    assert said in result.explanation


def test_explanation_says_which_finalist_failed_when_measured_again() -> None:
    """Nothing fits though a trial was in budget and no limit turned one away: this is why."""
    failed = {0: "provider_fallback: 1 of 8 nodes run on CPUExecutionProvider."}

    text = explain([], BUDGET, status="no_fit", left_out={}, nearest=None, failed=failed)

    assert "Trial 0 failed when it was measured again (provider_fallback: 1 of 8 nodes run on CPU" in text


def test_record_of_a_finalist_has_both_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search's, with its figures, and that of the second measurement: in result.json, trials.csv and the report."""
    result = concluded(tmp_path, [Facts(1.0), Facts(0.3, drop_later=0.02), Facts(0.4)], monkeypatch)
    trial = result.trials[1]
    raw = result.to_json()["trials"]
    columns, rows = trial_rows(result)

    assert trial.verdict is not None
    assert (raw[1]["overall"], raw[1]["verified"]["overall"]) == ("in", "out")
    assert raw[1]["verified"]["verdict"]["quality_drop"] == "out"
    assert raw[0]["verified"] is None
    assert columns.index("verified") == columns.index("verdict") + 1
    assert [(row["verdict"], row["verified"]) for row in rows] == [("out", None), ("in", "out"), ("in", "in")]
    assert mark_of(trial) is Mark.OUT
    assert TrialRecord.from_json(raw[1]).verified == trial.verified


def test_explanation_says_why_an_axis_has_no_figure() -> None:
    """What can't be measured here is named with its reason."""
    budget = Budget((Limit("energy_mj", 5.0),))
    measured = {"energy_mj": Measurement.missing("energy_mj", "no counter")}
    text = explain([], budget, status="undecided", left_out={}, nearest=(measured, budget.judge(measured)))

    assert "has no figure for energy_mj (no counter)" in text


@pytest.mark.parametrize(
    ("axis", "ratio", "expected"),
    [
        ("latency_p99_ms", Interval(0.5, 0.4, 0.8), Interval(2.0, 1.25, 2.5)),
        ("max_rate_rps", Interval(2.0, 1.5, 2.5), Interval(2.0, 1.5, 2.5)),
        ("throughput_rps", Interval(2.0, 1.5, 2.5), Interval(2.0, 1.5, 2.5)),
        ("size_mb", Interval(0.25, 0.25, 0.25), None),
    ],
)
def test_speedup_is_of_the_objective_where_it_is_a_time_or_a_rate(
    axis: str, ratio: Interval, expected: Interval | None
) -> None:
    """A smaller file is not called faster: then the median latency counts, where it was measured."""
    ranking = Ranking(axis, maximize=axis.endswith("_rps"))
    found = speedup({axis: Measurement(axis, 1.0, 1.0, 1.0, 9, ratio=ratio)}, ranking)

    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_result_of_baseline_alone_has_a_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model as given may be the winner."""
    result = concluded(tmp_path, [Facts(0.5)], monkeypatch)

    assert result.best is not None
    assert replace(result.best, speedup=None).recipe.steps == ()


def test_one_finalist_is_verified_when_a_limit_can_not_be_measured(tmp_path: Path) -> None:
    """Measuring again decides nothing about an axis without an instrument: more of it is lost time."""
    facts = [Facts(1.0), Facts(0.40), Facts(0.41), Facts(0.42)]
    unknown = Verdict(Judgement.UNDECIDED, {"energy_mj": Judgement.NOT_MEASURABLE}, {})
    records = [replace(record(i, f), verdict=unknown) for i, f in enumerate(facts)]
    evaluator: Any = evaluator_of(tmp_path, facts)

    assert len(verify(evaluator, records, RANKING, timetable=timetable()).done) == 1


def test_operators_of_baseline_and_chosen_variant_alone_are_timed(tmp_path: Path) -> None:
    """Nobody asks where the time of a variant goes that isn't shown."""
    facts = [Facts(1.0), Facts(0.4), Facts(0.5)]
    evaluator: Any = evaluator_of(tmp_path, facts)
    records = [record(i, f) for i, f in enumerate(facts)]
    done = verify(evaluator, records, RANKING, timetable=timetable()).done
    chosen = done[0]
    baseline, own = module._take_costs(evaluator, chosen)

    assert own is chosen.outcome
    assert evaluator.costed == [records[0].id, chosen.record.id]
    assert baseline.variant == evaluator.baseline.variant
    evaluator.costed.clear()
    _, unverified = module._take_costs(evaluator, records[2])
    assert unverified is not None
    assert unverified.measured == records[2].measured
    assert evaluator.costed == [records[0].id, records[2].id]
    assert module._take_costs(evaluator, None)[1] is None


def test_stages_and_operators_are_in_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For baseline and winner; what could not be timed is a warning of the result."""
    table = OperatorTable((OperatorCost("Conv", "CPUExecutionProvider", "float32", 2.0, 0.001),), 50)

    def take(self: FakeEvaluator, outcome: Outcome) -> None:
        outcome.profile = replace(outcome.profile or Profile(outcome.variant.id), operators=table)
        outcome.warnings.append("timed given" if not outcome.variant.recipe.steps else "timed chosen")

    monkeypatch.setattr(FakeEvaluator, "take_costs", take)
    result = concluded(tmp_path, [Facts(1.0), Facts(0.4)], monkeypatch)

    assert result.best is not None
    assert result.best.operators == result.baseline.operators == table
    assert {"timed given", "timed chosen"} <= set(result.warnings)
    assert StudyResult.from_json(result.to_json()).best == result.best
