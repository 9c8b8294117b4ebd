"""Providers that turn out not to run here: left out of the run, and no verdict on any variant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot.contracts import Slot
from autopilot.domain import Choice, Domain
from autopilot.errors import Failure, VariantFailed
from autopilot.recipe import Deployment, Recipe, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.absent import Absent, plain
from autopilot.search.hunt import Hunt
from autopilot.space import SearchSpace
from autopilot.spec import SearchSpec
from tests.unit.search_support import SPACE, Facts, Recorder, space_of, technique
from tests.unit.test_search_loop import run

TECHNIQUES = (technique("slim", Slot.GRAPH), technique("int8", Slot.PRECISION, prefer=lambda target: ({"kind": "a"},)))


def space(**providers: dict[str, Domain]) -> SearchSpace:
    """A space over the CPU provider and ``providers``."""
    return replace(space_of(*TECHNIQUES), providers={"cpu": {"arena": Choice((True, False))}, **providers})


TWO = space(vino={"level": Choice(("a", "b"))})
SEARCH = SearchSpec(trials=24, timeout_s=600.0)
GIVEN_THERE = Variant(Recipe(), TWO.default_deployment("vino"))


def absent(variant: Variant) -> Facts:
    """The second provider can't be loaded."""
    gone = variant.deployment.provider == "vino"
    return Facts(0.5 if variant.recipe.steps else 1.0, failure=Failure.PROVIDER_MISSING if gone else None)


def healthy(variant: Variant) -> Facts:
    """All run."""
    return Facts(0.5 if variant.recipe.steps else 1.0)


def test_provider_that_can_not_be_loaded_is_left_out_after_the_model_as_given(tmp_path: Path) -> None:
    """Two loads at most, one line of why, and every trial goes to what runs."""
    watcher = Recorder()
    result, (evaluator,) = run(tmp_path, absent, space=TWO, search=SEARCH, observer=watcher)

    providers = [r.variant.deployment.provider for r in result.trials]
    assert set(providers) == {"cpu"}
    assert len(evaluator.asked) - len([a for a in evaluator.asked if a[1]]) <= len(result.trials) + 2
    assert [note for note in watcher.notes if "left out from here on" in note] == [
        "provider vino is left out from here on: simulated."
    ]
    (gap,) = (g for g in result.not_tried if g.name == "vino")
    assert (gap.kind, gap.reason) == ("provider", "simulated.")


def test_run_with_the_provider_in_order_tries_what_another_could_not_load(tmp_path: Path) -> None:
    """A study that goes on, or is shared, must not believe one environment's trouble."""
    storage = SearchSpec(trials=24, timeout_s=600.0, storage=f"sqlite:///{tmp_path / 'shared.db'}")
    first, _ = run(tmp_path / "a", absent, space=TWO, search=replace(storage, trials=6))
    second, _ = run(tmp_path / "b", healthy, space=TWO, search=storage)

    assert len(first.trials) == 6
    tried = [r for r in second.trials if r.variant.deployment.provider == "vino"]
    assert tried
    assert all(r.failure is None for r in tried)


def test_failure_to_start_is_the_variants_own_where_another_run_had_the_model_as_given(tmp_path: Path) -> None:
    """It was tried there, and started: nothing is left out for a few engines that this run can't build."""
    storage = replace(SEARCH, storage=f"sqlite:///{tmp_path / 'shared.db'}")
    first, _ = run(tmp_path / "a", healthy, space=TWO, search=replace(storage, trials=10))
    assert GIVEN_THERE.id in {r.id for r in first.trials}
    watcher = Recorder()
    second, _ = run(tmp_path / "b", absent, space=TWO, search=storage, observer=watcher)

    later = [r for r in second.trials[10:] if r.variant.deployment.provider == "vino"]
    assert {r.failure for r in later} == {Failure.PROVIDER_MISSING}
    assert not [note for note in watcher.notes if "left out" in note]


class ManyRuns:
    """The book of a study in which another run has claimed variants."""

    measured_here: tuple[TrialRecord, ...] = ()

    def __init__(self, *claimed: Variant) -> None:
        self._claimed = claimed
        self.abandoned: Any = lambda trial: None
        self.same_variant: Any = lambda variant: None
        self.dead_end: Any = lambda recipe: None

    def is_barred(self, variant: Variant) -> bool:
        return variant in self._claimed


def test_provider_is_not_left_out_while_another_run_has_the_model_as_given() -> None:
    """How that ends decides; the variant itself is tried no more here until something starts there."""
    book: Any = ManyRuns(GIVEN_THERE)
    watcher: Any = Recorder()
    hunt = Hunt(TWO, None, book, None, trials=9, deadline=0.0)  # type: ignore[arg-type]
    hunt.watch.note = watcher.note  # type: ignore[method-assign]
    other = replace(GIVEN_THERE, deployment=GIVEN_THERE.deployment.with_(options=params_of({"level": "b"})))
    failed = VariantFailed(Failure.PROVIDER_MISSING, "no library.")

    hunt._missing(None, other, failed)  # type: ignore[arg-type]

    assert hunt.absent.bars(other)
    assert not hunt.absent.not_tried
    assert "Another run" in watcher.notes[-1]
    hunt._missing(None, GIVEN_THERE, failed)  # type: ignore[arg-type]
    assert [gap.name for gap in hunt.absent.not_tried] == ["vino"]


def test_failure_to_start_is_the_variants_own_where_its_provider_answered(tmp_path: Path) -> None:
    """An engine that can't be built for one recipe leaves the others."""

    def world(variant: Variant) -> Facts:
        stuck = variant.deployment.provider == "vino" and any(s.technique == "int8" for s in variant.recipe.steps)
        return Facts(0.5 if variant.recipe.steps else 1.0, failure=Failure.PROVIDER_MISSING if stuck else None)

    result, _ = run(tmp_path, world, space=TWO, search=SEARCH)

    there = [r for r in result.trials if r.variant.deployment.provider == "vino"]
    assert {r.failure for r in there} == {None, Failure.PROVIDER_MISSING}
    assert not [g for g in result.not_tried if g.name == "vino"]


@pytest.mark.parametrize("parts", [1, 2], ids=["in one run", "in a run that goes on"])
def test_variant_that_was_too_large_to_be_run_does_not_show_that_its_provider_is_there(
    tmp_path: Path, parts: int
) -> None:
    """The model as given breaks the limit on size, and tells nothing; two that don't start leave the provider out."""

    def world(variant: Variant) -> Facts:
        if variant.deployment.provider == "vino" and not variant.recipe.steps:
            return Facts(too_large=True)
        return absent(variant)

    for part in range(parts):
        search = SEARCH if part + 1 == parts else replace(SEARCH, trials=6)
        result, _ = run(tmp_path, world, space=TWO, search=search)

    there = [r for r in result.trials if r.variant.deployment.provider == "vino"]
    assert there
    assert {(r.state, r.stage) for r in there} == {(TrialState.PRUNED, "build")}
    assert [g.name for g in result.not_tried if g.kind == "provider"] == ["vino"]


def test_one_device_that_is_not_there_leaves_the_others() -> None:
    """A space may name more devices than there are."""
    found = Absent()
    usual = Deployment("cuda", options=params_of({"device": 0, "io": "plain"}))
    second = usual.with_(options=params_of({"device": 1, "io": "graph"}))
    variant = replace(SPACE_VARIANT, deployment=second)

    said = found.drop(variant, "no such device.")

    assert said == "provider cuda (device 1) is left out from here on: no such device."
    assert found.bars(variant)
    assert not found.bars(replace(variant, deployment=usual))
    assert plain(variant, usual).deployment == usual.with_(options=params_of({"device": 1, "io": "plain"}))


SPACE_VARIANT = Variant(SPACE.sample(lambda name, domain: domain.default).recipe, Deployment("cuda"))
