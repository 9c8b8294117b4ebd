"""Where nothing fits: which limit would have to give, and by how much."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.artifact import Artifact
from autopilot.budget import Budget, Judgement, Limit, Verdict
from autopilot.contracts import Axis, Stage
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import Relaxation, TrialRecord, TrialState
from autopilot.search.outlook import likely, on_held_back, past_baseline
from autopilot.search.ranking import Ranking
from autopilot.search.relax import (
    MOST_MISSES,
    MOST_RELAXATIONS,
    Judged,
    binding,
    near_misses,
    needed,
    relaxation,
    relaxations,
)

AXES = ("latency_p50_ms", "quality_drop", "throughput_rps", "size_mb", "quality")
UPPER = {"latency_p50_ms": True, "quality_drop": True, "throughput_rps": False, "size_mb": True, "quality": False}
RANKING = Ranking("latency_p50_ms", maximize=False)
figures = st.floats(1e-6, 1e6) | st.sampled_from([0.5, 1.0, 1.9, 2.0])


@st.composite
def limits(draw: st.DrawFn, axis: str) -> Limit:
    bound = draw(figures)
    if axis in ("quality", "quality_drop"):
        bound = draw(st.floats(-1, 1) if axis == "quality" else st.floats(0, 1))
    relative = axis in ("latency_p50_ms", "throughput_rps") and draw(st.booleans())
    return Limit(axis, bound, relative, UPPER[axis], draw(st.sampled_from([0.0, 0.02, 0.05, 0.3])))


@st.composite
def measurements(draw: st.DrawFn, axis: str) -> Measurement:
    value = draw(st.floats(-1, 1) if axis.startswith("quality") else figures)
    room = draw(st.floats(0, 0.2)) * abs(value)
    ratio = draw(st.floats(1e-3, 100.0))
    return Measurement(axis, value, value - room, value + room, 9, ratio=Interval(ratio, ratio * 0.9, ratio * 1.1))


@st.composite
def judged(draw: st.DrawFn) -> tuple[Judged, Budget]:
    """A variant, whole or cut short, and a budget that it was judged by."""
    axes = draw(st.lists(st.sampled_from(AXES), unique=True, min_size=1, max_size=4))
    budget = Budget(tuple(draw(limits(axis)) for axis in axes))
    known = draw(st.lists(st.sampled_from(axes), unique=True)) if draw(st.booleans()) else axes
    measured = {axis: draw(measurements(axis)) for axis in known}
    return variant_of(draw(st.integers(0, 99)), budget, measured), budget


def variant_of(number: int, budget: Budget, measured: dict[str, Measurement]) -> Judged:
    verdict = budget.judge(measured)
    return Judged(record(number, verdict, measured), measured, verdict)


def record(
    number: int,
    verdict: Verdict | None,
    measured: dict[str, Measurement] | None = None,
    state: TrialState = TrialState.COMPLETE,
) -> TrialRecord:
    variant = Variant(Recipe((Step("int8", params_of({"n": number})),)), Deployment("cpu"))
    artifact = Artifact(Path("m.onnx"), (Path("m.onnx"),), 100, f"sha{number}")
    return TrialRecord(
        id=variant.id,
        number=number,
        state=state,
        failure=None,
        reason="",
        stage="quality",
        variant=variant,
        measured=measured or {},
        verdict=verdict,
        artifact=artifact,
    )


def changed(budget: Budget, found: Relaxation) -> Budget:
    return Budget(tuple(found.needed if limit.axis == found.limit.axis else limit for limit in budget.limits))


@settings(deadline=None)
@given(judged())
def test_relaxed_budget_admits_the_variant(case: tuple[Judged, Budget]) -> None:
    """Applied, it does what it says: the variant is in."""
    variant, budget = case
    found = relaxation(variant, budget, RANKING)

    if found is not None:
        assert changed(budget, found).judge(variant.measured).overall is Judgement.IN
        assert (found.needed.bound > found.limit.bound) == found.limit.upper
        assert found.needed.margin == found.limit.margin


@settings(deadline=None)
@given(judged())
def test_relaxation_is_there_whenever_one_measured_limit_stands_in_the_way(case: tuple[Judged, Budget]) -> None:
    """And never where two do."""
    variant, budget = case
    missed = [axis for axis, j in variant.verdict.per_limit.items() if j is not Judgement.IN]
    found = relaxation(variant, budget, RANKING)

    if len(missed) != 1:
        assert found is None
    elif missed[0] in variant.measured and missed[0] not in ("quality", "quality_drop"):
        assert found is not None


@settings(deadline=None)
@given(judged())
def test_bound_is_no_wider_than_needed(case: tuple[Judged, Budget]) -> None:
    """Four digits outwards: one thousandth less wouldn't do."""
    variant, budget = case
    found = relaxation(variant, budget, RANKING)

    if found is not None and abs(found.needed.bound) > 1e-9:
        step = 1.1e-3 * abs(found.needed.bound) * (1 if found.limit.upper else -1)
        tighter = Limit(
            found.limit.axis, found.needed.bound - step, found.limit.relative, found.limit.upper, found.limit.margin
        )
        assert tighter.judge(variant.measured[found.limit.axis]) is not Judgement.IN


@settings(deadline=None)
@given(judged())
def test_needed_limit_can_be_typed_into_a_spec(case: tuple[Judged, Budget]) -> None:
    """As its text says it, a spec reads the same bound."""
    variant, budget = case
    found = relaxation(variant, budget, RANKING)

    if found is not None:
        axis = Axis(found.limit.axis, not found.limit.upper, Stage.LATENCY, "")
        typed = yaml.safe_load(found.needed.text[3:])
        typed = float(typed) if isinstance(typed, str) and "%" not in typed else typed
        assert Limit.parse(axis, typed, found.limit.margin).bound == pytest.approx(found.needed.bound, rel=1e-9)


def test_needed_is_none_without_a_bound() -> None:
    """Too few requests for an upper bound, an axis without an instrument: no limit is known to do."""
    limit = Limit("latency_p99_ms", 5.0)

    assert needed(limit, Measurement("latency_p99_ms", 4.0, 3.0, math.inf, 9)) is None
    assert needed(limit, Measurement.missing("latency_p99_ms", "no counter")) is None
    assert needed(Limit("throughput_rps", 5.0, upper=False), Measurement("throughput_rps", 1.0, 0.0, 2.0, 9)) is None


BUDGET = Budget((Limit("latency_p50_ms", 0.5, relative=True), Limit("quality_drop", 0.01), Limit("size_mb", 1.0)))


def measured(ratio: float, drop: float = 0.0, size: float = 0.5) -> dict[str, Measurement]:
    return {
        "latency_p50_ms": Measurement("latency_p50_ms", ratio, ratio, ratio, 9, ratio=Interval(ratio, ratio, ratio)),
        "quality_drop": Measurement("quality_drop", drop, drop, drop, 9),
        "size_mb": Measurement.exact("size_mb", size, "file size"),
    }


def test_relaxations_come_smallest_first_and_leave_out_what_gives_less_for_more() -> None:
    """Two on one axis only where the larger step gives more."""
    known = [measured(0.6), measured(0.7), measured(0.3, drop=0.05), measured(0.2, drop=0.09), measured(0.4, size=1.1)]
    variants = [variant_of(i, BUDGET, m) for i, m in enumerate(known)]

    found = relaxations(variants, BUDGET, RANKING)

    assert [(r.limit.axis, r.number) for r in found] == [
        ("size_mb", 4),
        ("latency_p50_ms", 0),
        ("quality_drop", 2),
        ("quality_drop", 3),
    ]
    assert [r.by for r in found] == sorted(r.by for r in found)
    assert Relaxation.from_json(found[0].to_json()) == found[0]


def test_relaxations_are_a_handful() -> None:
    """More would hide the best."""
    many = [variant_of(i, BUDGET, measured(0.4 - i / 100, drop=0.02 + i / 100)) for i in range(20)]

    assert len(relaxations(many, BUDGET, RANKING)) == MOST_RELAXATIONS


def test_binding_tells_sole_obstacles_from_company() -> None:
    """Whoever breaks two limits isn't helped by one; whoever was cut short is not known."""
    cut = {"latency_p50_ms": measured(0.9)["latency_p50_ms"]}
    verdicts = [
        BUDGET.judge(m) for m in (measured(0.9), measured(0.9, drop=0.5), measured(0.3, drop=0.5), cut, measured(0.3))
    ]

    found = binding(verdicts, BUDGET)

    assert [(b.axis, b.out, b.sole, b.unknown) for b in found] == [
        ("latency_p50_ms", 3, 1, 1),
        ("quality_drop", 2, 1, 0),
    ]


def test_near_misses_are_the_nearest_of_each_limit_first() -> None:
    """Cut short, nobody knows what else stands in their way; the nearest of each limit tell most."""
    known = [measured(0.55), measured(0.52), measured(0.9, drop=0.5), measured(0.3, size=1.3), measured(0.51)]
    records = [record(i + 1, BUDGET.judge(m), m) for i, m in enumerate(known)]
    baseline = record(0, BUDGET.judge(measured(0.501)), measured(0.501))

    found = near_misses([baseline, *records], known={5})

    assert [r.number for r in found] == [2, 4, 1]
    assert len(near_misses([record(i, BUDGET.judge(measured(0.6))) for i in range(1, 9)], known=())) == MOST_MISSES


def test_unmeasured_trials_are_no_near_misses() -> None:
    """What failed has nothing to relax."""
    assert near_misses([record(1, None, state=TrialState.FAILED)], known=()) == []


def screened(number: int, known: dict[str, Measurement]) -> Judged:
    return variant_of(number, BUDGET, known)


def verified(number: int, first: dict[str, Measurement], second: dict[str, Measurement]) -> Judged:
    return replace(variant_of(number, BUDGET, first), measured=second, verdict=BUDGET.judge(second), verified=True)


def scored(ratio: float, half: float, n: int) -> dict[str, Measurement]:
    """Nothing lost on ``n`` samples, to within ``half``."""
    return measured(ratio) | {"quality_drop": Measurement("quality_drop", 0.0, -half, half, n)}


def test_relaxation_counts_with_what_the_held_back_samples_can_show() -> None:
    """0 lost of 480 keeps a limit of 1%, of 300 it can't be shown: the latency alone doesn't let the variant in."""
    variant = screened(1, scored(0.6, 0.0079, 480))

    assert [r.number for r in relaxations(likely([variant], BUDGET, held_back=480), BUDGET, RANKING)] == [1]
    assert relaxations(likely([variant], BUDGET, held_back=300), BUDGET, RANKING) == ()


def test_interval_widens_as_one_on_fewer_samples_would() -> None:
    """With the root of the samples, or with the samples themselves where nothing was lost; never narrower."""
    some = measured(0.6) | {"quality_drop": Measurement("quality_drop", 0.004, 0.0, 0.008, 400)}

    def high(known: dict[str, Measurement], samples: int) -> float | None:
        return on_held_back(screened(1, known), BUDGET, samples).measured["quality_drop"].high

    assert high(some, 100) == pytest.approx(0.012)
    assert high(scored(0.6, 0.002, 400), 100) == pytest.approx(0.008)
    assert high(some, 9000) == 0.008


def test_what_undid_a_verified_variant_counts_against_those_no_better() -> None:
    """A variant with a larger loss than one whose loss broke the limit in the second look is no way out."""
    undone = verified(1, measured(0.3, drop=0.004), measured(0.3, drop=0.05))
    worse, better = screened(2, measured(0.6, drop=0.005)), screened(3, measured(0.7, drop=0.0))

    assert [v.record.number for v in likely([undone, worse, better], BUDGET, held_back=9)] == [1, 3]


def test_baseline_is_no_way_out() -> None:
    """It is what was to be improved on."""
    assert likely([screened(0, measured(1.0))], BUDGET, held_back=9) == []


@pytest.mark.parametrize(
    ("limit", "moved", "past"),
    [
        (Limit("latency_p50_ms", 0.8, relative=True), 1.0, True),
        (Limit("latency_p50_ms", 0.8, relative=True), 0.999, False),
        (Limit("peak_memory_mb", 1.1, relative=True), 1.3, False),
        (Limit("throughput_rps", 1.5, relative=True, upper=False), 0.99, True),
        (Limit("throughput_rps", 1.5, relative=True, upper=False), 1.2, False),
        (Limit("latency_p99_ms", 2.0), 5.0, True),
        (Limit("latency_p99_ms", 2.0), 4.9, False),
        (Limit("latency_p99_ms", 9.0), 10.0, False),
    ],
)
def test_limit_that_asks_for_better_than_the_baseline_stops_there(limit: Limit, moved: float, past: bool) -> None:
    """Moved to the baseline's own figure or beyond it asks for nothing any more; one that never did may move on."""
    assert past_baseline(limit, replace(limit, bound=moved), Measurement(limit.axis, 5.0, 5.0, 5.0, 9)) is past
