"""What is the baseline where a provider has another plain way of running the model than as given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot.artifact import Artifact
from autopilot.bench import rounds
from autopilot.budget import Budget, Limit
from autopilot.contracts import ProviderFacts
from autopilot.domain import Choice
from autopilot.errors import BaselineFailed, Failure, SpecError, Unsupported, VariantFailed
from autopilot.profile import Interval, LatencyReading
from autopilot.recipe import Deployment, Recipe, Rival, Step, Variant, params_of
from autopilot.result import BaselineChoice
from autopilot.search import given, rivals
from autopilot.search.evaluator import Evaluator
from autopilot.search.given import check_format, given_deployment, refuse_format
from autopilot.search.rivals import choice_of, rivals_of, settle_baseline
from autopilot.space import SearchSpace
from tests.unit.search_support import Recorder, artifact_of, reading, setup_of
from tests.unit.test_search_evaluator import WANTED, Bench, bench

__all__ = ["bench"]  # a fixture

HALF = Rival("half", steps=(Step("halved"),))
QUARTER = Rival("quarter", steps=(Step("halved"), Step("again")))
QUICK = Budget((Limit("latency_p50_ms", 0.6, relative=True),))


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives every provider these facts."""

    def declared(**told: Any) -> None:
        for module in (given, rivals):
            monkeypatch.setattr(module, "provider_facts", lambda name: ProviderFacts(**told))

    return declared


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that were built, by nobody."""
    done: list[Recipe] = []

    def build(self: Evaluator, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        done.append(recipe)
        return artifact_of(recipe)

    monkeypatch.setattr(Evaluator, "build", build)
    return done


def begun(folder: Path, **changes: Any) -> tuple[Evaluator, Recorder]:
    """An evaluator that has measured the model as given."""
    observer = Recorder()
    evaluator = Evaluator(setup_of(folder, **changes), observer)
    evaluator.measure_baseline()
    return evaluator, observer


def test_faster_rival_becomes_the_baseline(tmp_path: Path, bench: Bench, facts: Any, built: list[Recipe]) -> None:
    """Later ratios are to it, its own loss is that against the model as given, and the result says why."""
    facts(rivals=(HALF,))
    evaluator, _ = begun(tmp_path)
    settle_baseline(evaluator)
    baseline = evaluator.baseline

    assert baseline.variant == HALF.beside(evaluator.setup.given)
    assert baseline.measured["latency_p50_ms"].ratio == Interval(1.0, 1.0, 1.0)
    assert baseline.measured["quality_drop"].value == 0.001
    assert evaluator.reference.variant == evaluator.setup.given
    assert evaluator.control is not None
    bench.servers.clear()
    evaluator.measure(WANTED, artifact_of(WANTED.recipe))
    assert [s.name for s in bench.servers] == [f"{WANTED.recipe.digest[:6]} validation"]  # beside the one that lives
    assert choice_of(evaluator).name == "half"
    assert "half is 2.00 times as fast as the model as given (latency_p50_ms" in choice_of(evaluator).reason


def test_later_variants_are_read_beside_the_rival(
    tmp_path: Path, bench: Bench, facts: Any, built: list[Recipe]
) -> None:
    """The verification starts both anew: the baseline's server holds the rival's file, and its score is the rival's."""
    facts(rivals=(HALF,))
    evaluator, _ = begun(tmp_path)
    settle_baseline(evaluator)
    bench.servers.clear()
    evaluator.close()
    outcome = evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    ours = f"{evaluator.baseline.artifact.path.stem[:6]} validation"
    assert [s.name for s in bench.servers] == [ours, f"{WANTED.recipe.digest[:6]} validation"]
    assert evaluator.baseline_beside(outcome).measured["quality_drop"].value == 0.001


@pytest.mark.parametrize("latency_ms", [0.9999, 1.0, 1.5])
def test_rival_that_is_not_certainly_faster_is_left(
    tmp_path: Path, bench: Bench, facts: Any, built: list[Recipe], latency_ms: float
) -> None:
    """The simpler one stays, and nothing is scored for it."""
    facts(rivals=(HALF,))
    bench.latency_ms = latency_ms
    evaluator, observer = begun(tmp_path)
    bench.scored.clear()
    settle_baseline(evaluator)

    assert evaluator.baseline is evaluator.reference
    assert bench.scored == []
    assert choice_of(evaluator).as_given
    assert "which is not certainly faster" in choice_of(evaluator).reason
    assert any("not certainly faster" in note for note in observer.notes)


@pytest.mark.parametrize(
    ("drop", "budget", "is_taken"),
    [
        (Interval(0.02, 0.009, 0.03), Budget((Limit("quality_drop", 0.01),)), True),  # may be within
        (Interval(0.02, 0.011, 0.03), Budget((Limit("quality_drop", 0.01),)), False),
        (Interval(0.3, 0.2, 0.4), Budget((Limit("quality_drop", 0.5),)), True),
        (Interval(0.01, 0.004, 0.02), QUICK, True),
        (Interval(0.01, 0.0046, 0.02), QUICK, False),  # half a percent of 0.9
        (Interval(0.0, 0.0, 0.0), Budget((Limit("quality", 0.95, upper=False),)), False),
        (Interval(0.0, 0.0, 0.0), Budget((Limit("quality", 0.85, upper=False),)), True),
    ],
)
def test_rival_may_lose_what_the_budget_allows(
    tmp_path: Path,
    bench: Bench,
    facts: Any,
    built: list[Recipe],
    drop: Interval,
    budget: Budget,
    is_taken: bool,
) -> None:
    """Or, where the budget says nothing of quality, half a percent; only what is certainly worse is turned away."""
    facts(rivals=(HALF,))
    bench.drop = drop
    evaluator, _ = begun(tmp_path, budget=budget)
    settle_baseline(evaluator)

    assert choice_of(evaluator).as_given is not is_taken
    assert is_taken or "which is certainly" in choice_of(evaluator).reason


def test_rival_that_breaks_another_limit_is_a_baseline_all_the_same(
    tmp_path: Path, bench: Bench, facts: Any, built: list[Recipe]
) -> None:
    """A baseline need not keep the budget."""
    facts(rivals=(HALF,))
    evaluator, _ = begun(tmp_path, budget=Budget((Limit("size_mb", 1e-9), Limit("latency_p50_ms", 1e-6))))
    settle_baseline(evaluator)

    assert choice_of(evaluator).name == "half"


def test_rival_that_can_not_be_built_is_told_and_left(
    tmp_path: Path, bench: Bench, facts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one has its turn."""
    facts(rivals=(QUARTER, HALF))

    def build(self: Evaluator, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        if len(recipe.steps) == 2:
            raise VariantFailed(Failure.BUILD_ERROR, "the converter raised.")
        return artifact_of(recipe)

    monkeypatch.setattr(Evaluator, "build", build)
    evaluator, observer = begun(tmp_path)
    settle_baseline(evaluator)

    assert choice_of(evaluator).name == "half"
    assert "quarter is not taken, since it failed (build_error): the converter raised" in observer.notes
    assert choice_of(evaluator).reason.endswith("the converter raised.")


def test_rival_that_crashes_has_one_more_attempt(
    tmp_path: Path, bench: Bench, facts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad moment must not decide the baseline of a whole study."""
    facts(rivals=(HALF,))
    failures = [VariantFailed(Failure.CRASH, "the process was killed.")]

    def build(self: Evaluator, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        if failures:
            raise failures.pop()
        return artifact_of(recipe)

    monkeypatch.setattr(Evaluator, "build", build)
    evaluator, observer = begun(tmp_path)
    settle_baseline(evaluator)

    assert choice_of(evaluator).name == "half"
    assert "half: crash: the process was killed. Trying once more." in observer.notes


def test_fastest_of_several_rivals_is_taken(
    tmp_path: Path, bench: Bench, facts: Any, built: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order they are declared."""
    facts(rivals=(QUARTER, HALF))
    fast = artifact_of(Recipe(QUARTER.steps)).path.stem[:6]

    def measure(candidate: Any, other: Any, **more: Any) -> tuple[LatencyReading, LatencyReading | None]:
        mine = 0.25 if candidate.name.startswith(fast) else 0.5
        return reading(mine if other is not None else 1.0), reading(1.0) if other is not None else None

    monkeypatch.setattr(rounds, "measure_latency", measure)
    evaluator, _ = begun(tmp_path)
    settle_baseline(evaluator)

    assert choice_of(evaluator).name == "quarter"


def test_rival_that_fails_as_the_baseline_gives_its_place_back(
    tmp_path: Path, bench: Bench, facts: Any, built: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model as given is the baseline again, with the reading of the noise that goes with it."""
    facts(rivals=(HALF,))
    evaluator, _ = begun(tmp_path)
    control = evaluator.control

    def fail(self: Evaluator) -> Any:
        raise VariantFailed(Failure.OOM, "out of memory.")

    monkeypatch.setattr(Evaluator, "_measure_baseline", fail)
    settle_baseline(evaluator)

    assert evaluator.baseline is evaluator.reference
    assert evaluator.control is control
    assert "couldn't be measured as the baseline (oom): out of memory." in choice_of(evaluator).reason


def test_baseline_of_earlier_trials_is_taken_again(
    tmp_path: Path, bench: Bench, facts: Any, built: list[Recipe]
) -> None:
    """Whatever would be chosen now: the ratios of one study are to one baseline."""
    facts(rivals=(HALF,))
    evaluator, _ = begun(tmp_path / "a")
    settle_baseline(evaluator, evaluator.setup.given)
    assert (evaluator.baseline, built) == (evaluator.reference, [])

    bench.latency_ms = 2.0  # the rival is slow today
    evaluator, _ = begun(tmp_path / "b")
    settle_baseline(evaluator, HALF.beside(evaluator.setup.given))
    assert choice_of(evaluator).name == "half"

    settle_baseline(evaluator, evaluator.setup.given)  # another run had the model as given before
    assert evaluator.baseline is evaluator.reference


def test_study_whose_baseline_can_not_be_measured_any_more_does_not_go_on(
    tmp_path: Path, bench: Bench, facts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ratios to another one can't be compared with those so far."""
    facts(rivals=(HALF,))
    evaluator, _ = begun(tmp_path)

    def build(self: Evaluator, recipe: Recipe, seconds: dict[str, float]) -> Artifact:
        raise VariantFailed(Failure.BUILD_ERROR, "no.")

    monkeypatch.setattr(Evaluator, "build", build)
    with pytest.raises(BaselineFailed, match=r"baseline of this study's trials \(half\)") as caught:
        settle_baseline(evaluator, HALF.beside(evaluator.setup.given))

    assert "--fresh" in caught.value.hint


def test_provider_without_rivals_costs_nothing(tmp_path: Path, bench: Bench, built: list[Recipe]) -> None:
    """On the CPU nothing is built or measured beside the model as given, and nothing is said."""
    evaluator, observer = begun(tmp_path)
    passes = len(bench.caps)
    settle_baseline(evaluator)

    assert (built, len(bench.caps), observer.notes) == ([], passes, [])
    assert choice_of(evaluator) == BaselineChoice()


def test_rivals_have_the_ids_that_a_search_gives_them(tmp_path: Path, facts: Any) -> None:
    """A step's parameters are filled in, so that the search doesn't try the baseline once more."""
    facts(rivals=(Rival("float16", steps=(Step("float16"),)), Rival("nothing")))
    setup = setup_of(tmp_path)

    assert [v.recipe.to_json() for _, v in rivals_of(setup)] == [[{"technique": "float16", "scope": "compute"}]]


def test_model_as_given_is_computed_in_its_own_types(facts: Any) -> None:
    """Where a provider's default isn't, its word counts, even against a space that leaves nothing else to choose."""
    facts(exact=params_of({"precision": "fp32"}))
    space = SearchSpace({}, {"cpu": {"precision": Choice(("fp16",)), "arena": Choice((True,))}}, (1,), (1,))

    assert given_deployment(space) == Deployment("cpu", 1, 1, params_of({"precision": "fp32", "arena": True}))


def test_rival_by_options_alone_keeps_the_recipe() -> None:
    """As TensorRT's fp16: the file is the one that was given."""
    before = Variant(Recipe(), Deployment("cpu", options=params_of({"precision": "fp32", "io": "plain"})))
    found = Rival("fp16", options=params_of({"precision": "fp16"})).beside(before)

    assert found == replace(
        before, deployment=before.deployment.with_(options=params_of({"precision": "fp16", "io": "plain"}))
    )


# ---- formats ---------------------------------------------------------------------------------------


def test_file_that_a_provider_does_not_take_is_refused_before_anything_starts(
    tmp_path: Path, bench: Bench, facts: Any
) -> None:
    """Unsupported, with what it takes; no server, no cold start."""
    evaluator, _ = begun(tmp_path)
    facts(formats=(".xml",))
    started = (len(bench.servers), len(bench.cold_starts))

    with pytest.raises(Unsupported, match=r"cpu takes \.xml files, and .*\.onnx is none"):
        evaluator.measure(WANTED, artifact_of(WANTED.recipe))

    assert (len(bench.servers), len(bench.cold_starts)) == started


def test_first_provider_has_to_take_the_model(tmp_path: Path, facts: Any) -> None:
    """There would be nothing to compare with; another one of the list may be of use all the same."""
    space = setup_of(tmp_path).space
    check_format(space, Path("model.onnx"))
    refuse_format(Path("model.onnx"), "cpu")
    facts(formats=(".xml", ".bin"))

    with pytest.raises(SpecError, match=r"cpu takes \.xml and \.bin files, and model\.onnx is none"):
        check_format(space, Path("model.onnx"))


@pytest.mark.parametrize("name", ["Net.ONNX", "encoder.pb", "model"])
def test_model_is_onnx_whatever_its_file_is_called(tmp_path: Path, name: str) -> None:
    """It was read as ONNX before: only an ending that some provider claims tells of another kind."""
    check_format(setup_of(tmp_path).space, Path(name))
    refuse_format(Path(name), "cpu")
