"""Studies whose baseline is not the model as given, in a simulated world."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot.contracts import ProviderFacts, Slot
from autopilot.domain import Int
from autopilot.profile import Measurement
from autopilot.recipe import Recipe, Rival, Step, Variant
from autopilot.report import Content
from autopilot.report.points import quality_rises
from autopilot.report.sections.verdict import sentence
from autopilot.result import StudyResult
from autopilot.search import loop, rivals
from autopilot.search.candidates import SpaceCandidates
from autopilot.search.guided import choices_of
from autopilot.search.ranking import Ranking
from autopilot.spec import SearchSpec
from autopilot.testing import fake_result
from autopilot.tracking.describe import best_why
from autopilot.tracking.fields import study_tags
from tests.unit.search_support import SPACE, TARGET, Facts, Recorder, space_of, technique
from tests.unit.test_search_loop import Clock, Killed, kept, run

HALF = Rival("half", steps=(Step("halved"),))


def fast(variant: Variant) -> Facts:
    """The rival is twice as fast as the model as given, int8 three times."""
    steps = [s.technique for s in variant.recipe.steps]
    return Facts({"halved": 0.5, "int8": 0.33}.get(steps[-1], 1.0) if steps else 1.0, noise=0.001)


@pytest.fixture(autouse=True)
def rivalry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every provider has one rival, of a technique that the space doesn't have."""
    monkeypatch.setattr(rivals, "provider_facts", lambda name: ProviderFacts(rivals=(HALF,)))


def test_rival_is_trial_0_and_the_model_as_given_a_trial_like_others(tmp_path: Path) -> None:
    """All that speaks of the baseline names it."""
    watcher = Recorder()
    result, (evaluator,) = run(tmp_path, fast, observer=watcher)

    assert result.trials[0].variant == HALF.beside(evaluator.setup.given)
    assert result.trials[1].variant == evaluator.setup.given
    assert (result.baseline.variant, result.baseline_choice.name) == (result.trials[0].variant, "half")
    assert result.trials[0].reason == result.baseline_choice.reason
    assert result.explanation.startswith("The baseline is half: half is 2.00 times as fast as the model as given")
    assert any(note.startswith("the model as given: ") for note in watcher.notes)
    assert any(note.startswith("the baseline (half): ") for note in watcher.notes)
    assert study_tags(result)["baseline"] == "the baseline (half)"
    assert result.best is not None
    assert "as the baseline (half)" in best_why(result, result.best)
    assert StudyResult.from_json(result.to_json()).baseline_choice == result.baseline_choice


def test_page_names_the_baseline_where_it_is_the_winner(tmp_path: Path) -> None:
    """Not the model as given, which it isn't."""
    result, _ = run(tmp_path, fast, search=SearchSpec(trials=1, timeout_s=600.0))

    assert sentence(Content(result)).startswith("The budget is met by the baseline (half)")


def test_direction_of_the_metric_is_told_by_a_study_without_the_model_as_given() -> None:
    """From what scores and losses differ by, whichever trial came first."""

    def scored(quality: float, drop: float) -> dict[str, Measurement]:
        return {"quality": Measurement.exact("quality", quality, ""), "quality_drop": Measurement.exact("x", drop, "")}

    result = fake_result()
    for sign in (1, -1):
        figures = [scored(0.9 - sign * drop, drop) for drop in (0.01, 0.2)]
        trials = tuple(replace(result.trials[1], measured=m) for m in figures)
        assert quality_rises(replace(result, trials=trials)) is (sign > 0)


@pytest.mark.parametrize("end", [25, 60])
def test_interrupted_study_goes_on_with_the_same_baseline(tmp_path: Path, end: int) -> None:
    """Though the rival wouldn't be taken any more: the ratios so far are to it."""
    with contextlib.suppress(Killed):
        run(tmp_path, fast, clock=Clock(end))
    assert kept(tmp_path)[0]["recipe"] == [{"technique": "halved"}]

    result, (evaluator,) = run(tmp_path, lambda v: Facts(1.0))

    assert evaluator.baseline.variant == HALF.beside(evaluator.setup.given)
    assert evaluator.baseline_samples.startswith("baseline-")
    assert result.baseline_choice.name == "half"
    assert "2.00 times as fast" in result.baseline_choice.reason


def test_study_that_began_with_the_model_as_given_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rival that came with a newer driver is no reason to compare with something else half-way."""
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(rivals, "provider_facts", lambda name: ProviderFacts())
        run(tmp_path, fast, clock=Clock(25))
    assert kept(tmp_path)[0]["recipe"] == []

    result, (evaluator,) = run(tmp_path, fast)

    assert evaluator.baseline is evaluator.reference
    assert result.baseline_choice.as_given
    assert not result.baseline_choice.reason


def test_run_whose_trial_0_was_taken_by_another_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that begin at once may choose differently: the one that stored trial 0 is right."""
    with contextlib.suppress(Killed):
        run(tmp_path, fast, clock=Clock(25))
    monkeypatch.setattr(loop, "settle_baseline", lambda evaluator, earlier: None)

    _, (evaluator,) = run(tmp_path, fast)

    assert evaluator.baseline.variant == HALF.beside(evaluator.setup.given)


def test_baseline_outside_of_the_space_is_no_neighbour(tmp_path: Path) -> None:
    """A variant that the space can't give is told apart from those it can, and nothing is drawn around it."""
    outside = HALF.beside(Variant(Recipe(), SPACE.default_deployment()))
    assert SPACE.names_of(outside)["halved"] is True
    assert choices_of(SPACE, outside) is None

    result, _ = run(tmp_path, fast)
    wide = space_of(technique("wide", Slot.PRECISION, parameters={"k": Int(0, 99_999, 0)}))
    found = SpaceCandidates(wide, TARGET, Ranking("latency_p50_ms", maximize=False), seed=0)
    assert not found.is_whole
    records: list[Any] = [result.trials[0]]
    assert len(found.pool(records)) > 100
