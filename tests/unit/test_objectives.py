"""Several objectives: in the spec, the sampler, the book, the finalists and the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState as State

from autopilot.budget import Budget, Limit
from autopilot.contracts import Stage
from autopilot.errors import Failure, SpecError
from autopilot.plugins import vocabulary
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Recipe, Step, Variant, params_of
from autopilot.result import Status, StudyResult, TrialRecord, TrialState, speed_axis, trial_rows
from autopilot.search import conclude as module
from autopilot.search.book import Book
from autopilot.search.finalists import MOST_ON_FRONT, MOST_TIED, choose, front_of, next_finalist, verify
from autopilot.search.hopeless import ENOUGH_BETTER
from autopilot.search.ledger import Ledger
from autopilot.search.outcome import Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.sampler import Sampler, Told
from autopilot.search.settle import settle
from autopilot.search.storage import local_url
from autopilot.search.worker import Worker
from autopilot.space_walk import walk
from autopilot.spec import parse_spec
from tests.unit.search_support import (
    BUDGET,
    SPACE,
    Facts,
    FakeEvaluator,
    Recorder,
    artifact_of,
    figures,
    profile_of,
    setup_of,
    timetable,
)

ONE = Ranking("latency_p50_ms", maximize=False)
BOTH = Ranking("latency_p50_ms", maximize=False, further=(Ranking("quality", maximize=True),))
AXES = ("latency_p50_ms", "latency_p99_ms", "size_mb", "quality", "throughput_rps", "load_s")


# ---- the spec ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("specs")
    for name in ("model.onnx", "valid.npz"):
        (folder / name).write_text("")
    return folder


def parsed(home: Path, objective: Any) -> tuple[str, ...]:
    raw = {"name": "x", "model": "model.onnx", "data": {"validation": "valid.npz"}, "metric": "accuracy"}
    return parse_spec(raw | {"budget": {"size_mb": 1}, "objective": objective}, home, vocabulary()).objectives


@settings(deadline=None)
@given(chosen=st.lists(st.sampled_from(AXES), unique=True, min_size=1))
def test_listed_objectives_are_kept_in_their_order(home: Path, chosen: list[str]) -> None:
    """A list of one is the same as its one axis."""
    assert parsed(home, chosen) == tuple(chosen)
    assert parsed(home, chosen[0]) == (chosen[0],)


@settings(deadline=None)
@given(chosen=st.lists(st.sampled_from(AXES), min_size=2, max_size=8))
def test_repeated_objectives_are_refused(home: Path, chosen: list[str]) -> None:
    """The same axis twice is a slip."""
    if len(set(chosen)) < len(chosen):
        with pytest.raises(SpecError, match="twice"):
            parsed(home, chosen)
    else:
        assert parsed(home, chosen) == tuple(chosen)


def test_speed_is_the_first_time_or_rate() -> None:
    """A smaller file is not called faster."""
    assert speed_axis(["size_mb", "quality"]) == "latency_p50_ms"
    assert BOTH.speed.axis == "latency_p50_ms"
    rate = Ranking("quality", maximize=True, further=(Ranking("throughput_rps", maximize=True),))
    assert (rate.speed.axis, rate.speed.maximize) == ("throughput_rps", True)


def test_quality_is_compared_by_what_was_lost() -> None:
    """Paired samples know the loss better than either score; the sampler is told it in the metric's direction."""
    measured = figures(Facts(0.5, drop=0.03), later=False) | {"quality": Measurement("quality", 0.9, 0.8, 1.0, 600)}
    quality = BOTH.goals[1]

    assert quality.seen(measured) == Interval(0.03, pytest.approx(0.029), pytest.approx(0.031))
    assert BOTH.told(replace(record(1, Facts()), measured=measured)) == (0.5, -0.03)


# ---- sampler and book -------------------------------------------------------------------------------


def test_sampler_of_several_objectives_is_told_all() -> None:
    """A trial that was pruned does no harm; figures that aren't finite are bad ones, each in its own direction."""
    study = Sampler(maximize=[False, True], seed=0, limits=BUDGET.axes)
    for values in [(0.5, -0.1), (0.4, float("-inf")), (float("inf"), 0.0), None]:
        trial, _ = study.ask(SPACE)
        study.tell(trial, Told(values, {"quality_drop": 0.1}))

    told = [tuple(t.values) for t in study.trials if t.state is State.COMPLETE]
    assert told == [(0.5, -0.1), (0.4, -1e12), (1e12, 0.0)]


def variant(number: int) -> Variant:
    steps = (Step("int8", params_of({"n": number})),) if number else ()
    return Variant(Recipe(steps), setup_of(Path()).space.default_deployment())


def test_variant_is_hopeless_only_where_it_is_behind_in_everything(tmp_path: Path) -> None:
    """Slow but better is a place on the front; while its quality isn't known nobody gives it up."""
    sampler = Sampler(maximize=[False, True], seed=0, limits=BUDGET.axes)
    ledger = Ledger(local_url(tmp_path), "s", worker=Worker.here())
    book = Book(sampler, ledger, BOTH, work=tmp_path, space=SPACE)
    for i, wanted in enumerate(list(walk(SPACE))[:ENOUGH_BETTER]):
        sampler.enqueue(SPACE, wanted)
        trial, asked = sampler.ask(SPACE)
        assert book.claim(asked, 100)
        told = figures(Facts(0.3, drop=0.002), later=False)
        outcome = Outcome(asked, artifact_of(asked.recipe), told, profile_of(asked), Stage.QUALITY)
        book.measured(trial, outcome, BUDGET.judge(told))
        assert book.records[i].verdict is not None
    slow = figures(Facts(0.55, drop=0.009), later=False)

    assert "latency_p50_ms and quality" in (book.hopeless(slow) or "")
    assert book.hopeless({"latency_p50_ms": slow["latency_p50_ms"]}) is None
    assert book.hopeless(figures(Facts(0.55, drop=0.0), later=False)) is None


# ---- finalists --------------------------------------------------------------------------------------


def record(number: int, facts: Facts, *, steps: int = 1) -> TrialRecord:
    made = variant(number)
    recipe = Recipe(tuple(replace(s, technique=f"t{i}") for s in made.recipe.steps for i in range(steps)))
    made = replace(made, recipe=recipe)
    measured = figures(facts, later=False)
    return TrialRecord(
        id=made.id,
        number=number,
        state=TrialState.COMPLETE,
        failure=None,
        reason="",
        stage="quality",
        variant=made,
        measured=measured,
        verdict=BUDGET.judge(measured),
        artifact=artifact_of(made.recipe),
    )


def evaluator_of(folder: Path, facts: list[Facts]) -> Any:
    def world(asked: Variant) -> Facts:
        return facts[int(dict(asked.recipe.steps[0].params)["n"]) if asked.recipe.steps else 0]

    evaluator = FakeEvaluator(setup_of(folder), Recorder(), world)
    evaluator.measure_baseline()
    return evaluator


def test_last_finalist_is_the_simplest_that_ties(tmp_path: Path) -> None:
    """It wins where all tie, so it has to be among those that are measured again."""
    facts = [Facts(1.0), *(Facts(0.40 + i / 1000) for i in range(5))]
    records = [record(i, f, steps=1 if i == 5 else 2) for i, f in enumerate(facts) if i]

    done = verify(evaluator_of(tmp_path, facts), records, ONE, timetable=timetable()).done

    assert [v.record.number for v in done] == [1, 2, 5]
    assert len(done) == MOST_TIED
    winner = choose(done, ONE)
    assert winner is not None
    assert winner.record.number == 5


def test_wide_interval_behind_a_narrow_one_may_still_win(tmp_path: Path) -> None:
    """Variants aren't passed over because one before them in line can't win."""
    facts = [Facts(1.0), Facts(0.40), Facts(0.43), Facts(0.44, noise=0.05)]
    records = [record(i, f) for i, f in enumerate(facts) if i]
    done = verify(evaluator_of(tmp_path, facts), records[:1], ONE, timetable=timetable()).done

    following = next_finalist(records[1:], done, ONE)

    assert following is not None
    assert following.number == 3


FRONT = [Facts(1.0), Facts(0.3, drop=0.008), Facts(0.4, drop=0.004), Facts(0.5, drop=0.0), Facts(0.55, drop=0.007)]


def test_front_is_verified_from_its_ends(tmp_path: Path) -> None:
    """Best of each objective first, what is beaten not at all; the first objective chooses the winner."""
    records = [record(i, f) for i, f in enumerate(FRONT)]

    done = verify(evaluator_of(tmp_path, FRONT), records, BOTH, timetable=timetable()).done

    assert [v.record.number for v in done] == [1, 3, 2]
    winner = choose(done, BOTH)
    assert winner is not None
    assert winner.record.number == 1


def test_member_that_does_not_hold_leaves_its_place(tmp_path: Path) -> None:
    """Whom it kept off the front returns, and is verified."""
    facts = [Facts(1.0), Facts(0.3, drop=0.002, drop_later=0.03), Facts(0.4, drop=0.004), Facts(0.5, drop=0.0)]
    records = [record(i, f) for i, f in enumerate(facts)]
    assert [m.point.number for m in front_of(records, (), BOTH)] == [1, 3]

    done = verify(evaluator_of(tmp_path, facts), records, BOTH, timetable=timetable()).done

    assert {v.record.number for v in done} == {1, 2, 3}
    assert [m.point.number for m in front_of(records, done, BOTH)] == [2, 3]


def test_front_that_is_verified_is_bounded(tmp_path: Path) -> None:
    """A large front is shown, with the rest as the search found it."""
    facts = [Facts(1.0), *(Facts(0.2 + i / 40, drop=0.008 - i / 2000, noise=0.001) for i in range(12))]
    records = [record(i, f) for i, f in enumerate(facts)]

    done = verify(evaluator_of(tmp_path, facts), records, BOTH, timetable=timetable()).done

    assert len(done) == MOST_ON_FRONT
    assert sum(m.point.verified for m in front_of(records, done, BOTH)) == MOST_ON_FRONT


# ---- ties, read against each other ------------------------------------------------------------------


def settled(folder: Path, noise: float, *, late: bool = False) -> tuple[int, list[str], list[tuple[str, str]]]:
    """Two finalists 4% apart beside the baseline, where that is inside the noise; the slower is the simpler."""
    facts = [Facts(1.0), Facts(0.40, noise=0.02), Facts(0.416, noise=0.02)]
    records = [record(1, facts[1], steps=2), record(2, facts[2])]
    evaluator = evaluator_of(folder, facts)
    evaluator.comparing_noise = noise
    done = verify(evaluator, records, ONE, timetable=timetable()).done
    winner, comparisons = settle(evaluator, done, ONE, timetable=timetable(late=late))
    assert winner is not None
    return winner.record.number, [c.verdict for c in comparisons], evaluator.compared


def test_certainly_faster_finalist_wins_the_direct_comparison(tmp_path: Path) -> None:
    """A tie beside the baseline may be none side by side."""
    assert settled(tmp_path, 0.005)[:2] == (1, ["faster"])


def test_tie_in_the_direct_comparison_goes_to_the_simpler(tmp_path: Path) -> None:
    """And where there is no time for one."""
    assert settled(tmp_path, 0.1)[:2] == (2, ["tie"])
    assert settled(tmp_path, 0.005, late=True) == (2, [], [])


# ---- the result -------------------------------------------------------------------------------------


def concluded(
    folder: Path, facts: list[Facts], ranking: Ranking, monkeypatch: pytest.MonkeyPatch, budget: Budget = BUDGET
) -> StudyResult:
    monkeypatch.setattr(module, "write_outputs", lambda result, out, artifact, **more: result)
    evaluator = evaluator_of(folder, facts)
    problem = replace(evaluator.setup.problem, more_objectives=ranking.axes[1:], budget=budget)
    evaluator.setup = replace(evaluator.setup, problem=problem)
    records = [record(i, f) for i, f in enumerate(facts)]
    records = [replace(r, verdict=budget.judge(r.measured)) for r in records]
    result = module.conclude(evaluator, records, ranking, started=0.0, deadline=float("inf"), out=folder)
    assert StudyResult.from_json(json.loads(result.text())).to_json() == json.loads(result.text())
    return result


def test_result_has_the_front_and_the_winner_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, figures of every objective, and whether they were verified."""
    result = concluded(tmp_path, FRONT, BOTH, monkeypatch)

    assert result.to_json()["objective"] == ["latency_p50_ms", "quality"]
    assert [m.number for m in result.front] == [1, 2, 3]
    assert result.pareto == tuple(m.id for m in result.front)
    assert all(m.verified and m.certain for m in result.front)
    assert set(result.front[0].measured) == {"latency_p50_ms", "quality_drop"}
    assert result.best is not None
    assert result.best.id == result.front[0].id
    columns, rows = trial_rows(result)
    assert {"pareto", "place"} <= set(columns)
    assert [r["pareto"] for r in rows] == [False, True, True, True, False]
    assert [r["place"] for r in rows] == ["baseline", "best", "front", "front", None]


def test_result_of_one_objective_has_a_string_and_fallbacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract's key keeps its type; the ladder is below the winner."""
    facts = [Facts(1.0), Facts(0.5), Facts(0.4, drop=0.03), Facts(0.3, drop=0.06, failure_later=Failure.CRASH)]
    result = concluded(tmp_path, facts, ONE, monkeypatch)

    assert result.to_json()["objective"] == "latency_p50_ms"
    assert result.front == ()
    assert [f.candidate.number for f in result.fallbacks] == [2]
    assert result.fallbacks[0].candidate.artifact == "fallbacks/1/model.onnx"
    assert [t.stage for t in result.trials] == ["quality", "verify", "verify", "verify"]
    assert result.trials[3].reason.startswith("failed when measured again")
    assert result.relaxations == ()


def test_relaxation_of_a_result_admits_its_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near misses that were cut short are measured to the end, and the same study with that limit succeeds."""
    budget = Budget((Limit("latency_p50_ms", 0.2, relative=True, margin=0.02), Limit("quality_drop", 0.01)))
    facts = [Facts(1.0), Facts(0.5), Facts(0.4, drop=0.03), Facts(0.45)]
    result = concluded(tmp_path, facts, ONE, monkeypatch, budget)

    assert result.status is Status.NO_FIT
    way = result.relaxations[0]
    assert (way.limit.axis, way.number, way.verified) == ("latency_p50_ms", 3, True)
    assert "in place of <= 20% of baseline would admit trial 3" in result.explanation
    assert {b.axis: (b.out, b.sole) for b in result.binding} == {"latency_p50_ms": (4, 3), "quality_drop": (1, 0)}
    relaxed = Budget((way.needed, budget.limits[1]))
    again = concluded(tmp_path, facts, ONE, monkeypatch, relaxed)
    assert again.status is Status.IN_BUDGET
    assert again.best is not None
    assert again.best.number == 3


def test_near_miss_that_holds_when_measured_again_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certain violation is wrong once in forty times: held-back data have the last word."""
    facts = [Facts(1.0), Facts(0.5, drop=0.03, drop_later=0.0)]
    result = concluded(tmp_path, facts, ONE, monkeypatch)

    assert result.status is Status.IN_BUDGET
    assert result.best is not None
    assert result.best.number == 1
