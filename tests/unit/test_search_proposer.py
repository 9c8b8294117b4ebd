"""The proposer: recommended variants first, then the best bet, and an end when nothing is worth a trial."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.budget import Judgement
from autopilot.contracts import Slot, Technique
from autopilot.domain import Choice, Domain, Float, Int, nearest
from autopilot.needs import NotTried
from autopilot.recipe import Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.candidates import MOST, SpaceCandidates
from autopilot.search.finalists import Ranking
from autopilot.search.proposer import FEWEST_TRIALS, Candidates, Proposer, _Model
from autopilot.search.stages import Screen
from autopilot.search.untried import untried
from autopilot.space import SearchSpace
from autopilot.space_walk import walk
from tests.unit.search_support import BUDGET, SPACE, TARGET, Facts, figures, finished, space_of, technique

RANKING = Ranking("latency_p50_ms", maximize=False)
Facts_of = Callable[[Variant], Facts]


def record(number: int, variant: Variant, facts: Facts) -> TrialRecord:
    measured = figures(facts, later=False)
    seconds = {"build": 0.5, "load": 0.2, "profile": 1.0, "evaluate": 1.0}
    return finished(number, variant, measured, BUDGET.judge(measured), seconds=seconds)


def proposer(space: SearchSpace = SPACE, seed: int = 0) -> Proposer:
    return Proposer(SpaceCandidates(space, TARGET, RANKING, seed=seed), RANKING, BUDGET.axes)


def played(facts: Facts_of, trials: int, space: SearchSpace = SPACE, seed: int = 0) -> tuple[list[TrialRecord], str]:
    """The records of a search in a world of ``facts``, and why it ended."""
    asked = proposer(space, seed)
    records: list[TrialRecord] = []
    seen: set[str] = set()
    while len(records) < trials:
        found = asked.next(records, lambda v: v.id not in seen)
        if found.variant is None:
            return records, found.reason
        seen.add(found.variant.id)
        records.append(record(len(records), found.variant, facts(found.variant)))
    return records, ""


def additive(seed: int) -> Facts_of:
    """Each choice is a factor of its own; one in three kinds of a technique costs too much quality."""
    source = random.Random(seed)
    names = [f"{a}.{b}" for a in ("int8", "slim") for b in "abc"]
    effect = {name: source.uniform(0.7, 1.0) for name in names} | {"arena": source.uniform(0.8, 1.2)}
    bad = {source.choice(names[:3])}

    def facts(variant: Variant) -> Facts:
        ratio, drop = 0.7, 0.0
        for step in variant.recipe.steps:
            name = f"{step.technique}.{dict(step.params)['kind']}"
            ratio *= effect[name]
            drop += 0.05 * (name in bad)
        if not dict(variant.deployment.options)["arena"]:
            ratio *= effect["arena"]
        return Facts(ratio, drop, noise=0.002)

    return facts


def best_of(facts: Facts_of) -> float:
    found = [facts(v) for v in walk(SPACE)]
    return min(f.ratio for f in found if BUDGET.judge(figures(f, later=False)).overall is Judgement.IN)


@pytest.mark.parametrize("seed", range(12))
def test_search_finds_the_best_before_it_ends_by_itself(seed: int) -> None:
    """In worlds of independent effects the optimum (within the noise) is met, and not by trying all 32 variants."""
    facts = additive(seed)
    records, reason = played(facts, 100)

    inside = [r.measured["latency_p50_ms"].value for r in records if r.verdict and r.verdict.overall is Judgement.IN]
    assert min(v for v in inside if v is not None) <= best_of(facts) * 1.01
    assert len({r.id for r in records}) == len(records)
    assert reason
    assert len(records) < len(list(walk(SPACE)))


def test_search_asks_recommended_variants_first_and_knows_nothing_else_at_first() -> None:
    """A technique's advice is taken before the model has anything to go by."""
    advised = space_of(technique("int8", Slot.PRECISION, prefer=lambda target: ({"kind": "c"},)))
    first = proposer(advised).next([], lambda v: True)

    assert first.variant is not None
    assert [dict(s.params) for s in first.variant.recipe.steps] == [{"kind": "c"}]
    assert "recommended" in first.reason


def test_search_goes_on_while_nothing_fits() -> None:
    """Without a variant in budget all are worth a trial: it ends when every variant was tried."""
    records, reason = played(lambda v: Facts(1.5, 0.5), 100)

    assert len(records) == len(list(walk(SPACE)))
    assert reason == "every variant of this space was tried"


def test_search_does_not_end_before_it_has_seen_enough() -> None:
    """All alike: there is nothing to gain, but that is only known after some trials."""
    records, _ = played(lambda v: Facts(0.5, 0.0, noise=0.001), 100)

    assert len(records) >= FEWEST_TRIALS


def test_same_trials_give_the_same_proposal() -> None:
    """A resumed search, or another machine on the study, goes on as this one would."""
    facts = additive(3)
    records, _ = played(facts, 14)
    seen = {r.id for r in records}
    again = [proposer().next(records, lambda v: v.id not in seen).variant for _ in range(2)]

    assert again[0] == again[1] is not None


def test_failed_techniques_are_left_alone() -> None:
    """Where every trial of one technique failed, what is left of it comes after what may run."""
    records, _ = played(additive(1), 10)
    failed: list[TrialRecord] = []
    for r in records:
        if any(s.technique == "slim" for s in r.variant.recipe.steps):
            r = replace(r, state=TrialState.FAILED, measured={}, verdict=None)
        failed.append(r)
    seen = {r.id for r in failed}
    found = proposer().next(failed, lambda v: v.id not in seen).variant

    assert found is not None
    assert all(s.technique != "slim" for s in found.recipe.steps)


@pytest.mark.parametrize("wanted", [Float(0.0, 1.0, 0.5), Choice(tuple(range(MOST + 1)))])
def test_large_space_is_drawn_from_and_the_neighbours_of_the_best_are_in(wanted: Any) -> None:
    """No end of variants: the pool is a part, near what was good, and only what makes sense."""
    large = space_of(technique("int8", Slot.PRECISION, parameters={"level": wanted, "kind": Choice(("a", "b"))}))
    candidates = SpaceCandidates(large, TARGET, RANKING, seed=0)
    records, _ = played(lambda v: Facts(0.4, 0.0), 6, large)
    pool = candidates.pool(records)
    level = [dict(s.params)["level"] for r in records for s in r.variant.recipe.steps]

    assert not candidates.is_whole
    assert len(pool) > 300
    near = [v for v in pool if any(dict(s.params)["level"] in level for s in v.recipe.steps)]
    assert len(near) >= 4  # the same level by chance alone: hardly one


def training(name: str = "trains") -> Technique:
    """A technique that takes minutes, less of it where a lower effort was built."""
    return technique(
        name,
        Slot.STRUCTURE,
        parameters={"effort": Int(0, 3, 0), "kept": Float(0.2, 1.0, 0.5)},
        prefer=lambda target: ({"effort": 0, "kept": 0.5},),
        work=lambda params: 20.0 * 2 ** int(str(params["effort"])),
        continues="effort",
    )


def training_step(kept: float, effort: int = 0) -> Step:
    return Step("trains", params_of({"effort": effort, "kept": kept}))


def variant_of(*steps: Step) -> Variant:
    return Variant(Recipe(steps), SPACE.default_deployment())


def test_recommended_training_is_put_before_what_turned_out_good() -> None:
    """The pool of a large space holds the best variants with each recommended training before them."""
    space = space_of(training(), technique("int8", Slot.PRECISION))
    good = variant_of(Step("int8", params_of({"kind": "c"})))

    pool = SpaceCandidates(space, TARGET, RANKING, seed=0).pool([record(0, good, Facts(0.3))])

    trained = training_step(0.5)
    assert variant_of(trained, *good.recipe.steps).id in {v.id for v in pool}


@pytest.mark.parametrize("drop", [0.0, 0.05])
def test_training_is_continued_whether_it_kept_the_limits_or_not(drop: float) -> None:
    """One level further is a candidate for trained variants in budget and for those that missed it."""
    space = space_of(training(), technique("int8", Slot.PRECISION))
    tried = training_step(0.321, effort=1)

    pool = SpaceCandidates(space, TARGET, RANKING, seed=0).pool([record(0, variant_of(tried), Facts(0.3, drop))])

    further = training_step(0.321, effort=2)
    assert variant_of(further).id in {v.id for v in pool}


def test_pruned_variant_that_missed_is_taught_further() -> None:
    """Where what pruning left broke a limit, the recommended training after it is a candidate."""
    teach = replace(training("teach"), slot=Slot.TRAINING)
    space = space_of(technique("prune", Slot.STRUCTURE), teach, training_int8())
    pruned, int8 = Step("prune", params_of({"kind": "b"})), Step("int8", params_of({"kind": "c", "level": 0.123}))
    deployment = SPACE.default_deployment()

    tried = record(0, Variant(Recipe((pruned, int8)), deployment), Facts(0.3, 0.05))
    pool = SpaceCandidates(space, TARGET, RANKING, seed=0).pool([tried])

    taught = Step("teach", params_of({"effort": 0, "kept": 0.5}))
    assert Variant(Recipe((pruned, taught, int8)), deployment).id in {v.id for v in pool}


def training_int8() -> Technique:
    """int8 with so many settings that the space is drawn from."""
    kinds = Choice(("a", "b", "c"))
    return technique("int8", Slot.PRECISION, parameters={"kind": kinds, "level": Float(0.0, 1.0, 0.5)})


def test_what_should_not_end_in_time_is_not_begun() -> None:
    """With ten seconds left no training of minutes is proposed."""
    space = space_of(training(), technique("int8", Slot.PRECISION))
    cheap = [Step("int8", params_of({"kind": kind})) for kind in "abc"]
    variants = [Variant(Recipe((step,)), space.default_deployment()) for step in cheap]
    variants += [Variant(v.recipe, v.deployment.with_(options=params_of({"arena": False}))) for v in variants]
    variants += [variant_of(training_step(kept)) for kept in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    records = [record(k, v, Facts(0.5)) for k, v in enumerate(variants)]
    records = [replace(r, seconds={**r.seconds, "build": 100.0}) if is_trained(r.variant) else r for r in records]
    seen = {r.id for r in records}
    built = {step for v in variants for step in v.recipe.steps}

    def is_new_training(variant: Variant) -> bool:
        return is_trained(variant) and variant.recipe.steps[0] not in built

    asked = replace(proposer(space), techniques=lambda: {t.name: t for t, _ in space.techniques.values()})
    found = asked.next(records, lambda v: v.id not in seen, 10.0)
    nothing_short = asked.next(records, is_new_training, 10.0)
    unhurried = asked.next(records, is_new_training)

    assert found.variant is not None
    assert not is_new_training(found.variant)
    assert nothing_short.variant is None
    assert "time" in nothing_short.reason
    assert unhurried.variant is not None


def test_what_should_not_end_in_time_is_not_begun_where_nothing_promises_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An expected gain may be 0 to the last bit; a training of minutes is no better for it."""
    monkeypatch.setattr(_Model, "improvement", lambda self, ranking: np.zeros(self._all))
    space = space_of(training(), technique("int8", Slot.PRECISION))
    techniques = {t.name: t for t, _ in space.techniques.values()}
    asked = replace(proposer(space), known=0, expected_s={Screen.BUILD: 3.0}, techniques=lambda: techniques)
    first = record(0, variant_of(training_step(0.3)), Facts(0.5))
    first = replace(first, seconds={"build": 100.0})
    (trained, *_), quick = (
        [v for v in asked.candidates.pool([first]) if is_trained(v) is wanted and v.id != first.id]
        for wanted in (True, False)
    )
    monkeypatch.setattr(asked, "candidates", Pool([trained, quick[0]], asked.candidates))

    assert asked.next([first], lambda v: True, 10.0).variant == quick[0]


class Pool:
    """These variants alone."""

    def __init__(self, variants: list[Variant], whole: Candidates) -> None:
        self._variants = variants
        self.names_of = whole.names_of

    def pool(self, records: object) -> list[Variant]:
        return self._variants


def is_trained(variant: Variant) -> bool:
    return any(step.technique == "trains" for step in variant.recipe.steps)


def test_trainings_come_after_what_is_quick_and_end_in_the_best_precision() -> None:
    """A search of minutes a build first tries what takes seconds, then each training once, then pairs."""
    space = space_of(
        technique("distil", Slot.STRUCTURE, needs_training=True),
        technique("slim", Slot.GRAPH),
        technique("aware", Slot.PRECISION, needs_training=True),
        technique("int8", Slot.PRECISION),
        technique("mixed", Slot.PRECISION),
    )

    known = [[s.technique for s in v.recipe.steps] for v in space.known_good(TARGET)]

    assert known[:5] == [["int8"], ["mixed"], ["slim"], ["distil", "int8"], ["aware"]]
    assert known[5:] == [["slim", "int8"], ["slim", "mixed"]]


def test_technique_narrowed_to_other_values_than_recommended_has_its_turn_all_the_same() -> None:
    """Once, with the allowed values nearest to the recommendation that differs least from them."""
    trains = technique(
        "trains",
        Slot.STRUCTURE,
        needs_training=True,
        parameters={"student": Choice(("width",)), "effort": Choice((0,)), "keep": Float(0.2, 0.4, 0.3)},
        prefer=lambda target: (
            {"student": "depth", "effort": 1, "keep": 0.5},
            {"student": "width", "effort": 1, "keep": 0.5},
            {"student": "width", "effort": 2, "keep": 0.1},
        ),
    )
    space = space_of(technique("int8", Slot.PRECISION), trains)

    known = [v.recipe.steps for v in space.known_good(TARGET)]

    assert [[s.technique for s in steps] for steps in known] == [["int8"], ["trains", "int8"]]
    assert dict(known[1][0].params) == {"student": "width", "effort": 0, "keep": 0.4}


@settings(deadline=None)
@given(st.sampled_from([Choice((1, 5, 9)), Choice(("a", "b")), Int(-3, 8, 2), Float(0.5, 2.0, 1.0)]), st.data())
def test_nearest_value_is_allowed_and_the_value_itself_where_that_is(domain: Domain, data: st.DataObject) -> None:
    """Whatever is asked for, a number, a word or a switch."""
    asked = data.draw(st.integers(-9, 20) | st.floats(-9, 20) | st.sampled_from(["a", "z"]) | st.booleans())
    found = nearest(domain, asked)

    assert domain.contains(found)
    assert not domain.contains(asked) or found == asked
    if not isinstance(domain, Choice) and isinstance(asked, (int, float)) and not isinstance(asked, bool):
        ends = (domain.low, domain.high)
        assert abs(found - asked) <= min(abs(end - asked) for end in ends)  # type: ignore[operator]


def test_techniques_that_had_no_turn_are_named_with_what_ended_the_search() -> None:
    """Nothing that the space names goes untried without a word; what was tried in vain was tried."""
    space = space_of(
        technique("int8", Slot.PRECISION),
        technique("slim", Slot.GRAPH),
        technique("odd", Slot.STRUCTURE, prefer=lambda target: ()),
    )
    records, _ = played(lambda v: Facts(0.5), 1, space)

    found = {gap.name: gap for gap in untried(space, records, "time is up", TARGET)}

    assert set(found) == {"slim", "odd"}
    assert found["slim"].reason == "the search ended before its turn: time is up"
    assert found["odd"].reason == "not recommended for this machine, and not come to: time is up"
    assert NotTried.from_json(found["slim"].to_json()) == found["slim"]


def test_dear_training_needs_more_to_gain_than_a_quick_build() -> None:
    """Of two unknown techniques alike in all else the one that takes seconds is proposed."""
    slow = technique("slow", Slot.PRECISION, needs_training=True, work=lambda params: 200.0)
    space = space_of(slow, technique("quick", Slot.PRECISION), arena=(True,))
    candidates = SpaceCandidates(space, TARGET, RANKING, seed=0)
    known = {t.name: t for t, _ in space.techniques.values()}
    expected_s = {Screen.BUILD: 3.0}
    asked = Proposer(candidates, RANKING, BUDGET.axes, known=0, expected_s=expected_s, techniques=lambda: known)
    given = Variant(Recipe(), space.default_deployment())

    found = asked.next([record(0, given, Facts())], lambda v: v.id != given.id)

    assert found.variant is not None
    assert [s.technique for s in found.variant.recipe.steps] == ["quick"]
