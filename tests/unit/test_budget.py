"""Limits and verdicts: what intervals say about bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.budget import WORST_VIOLATION, Budget, Judgement, Limit, Verdict, parse_fraction
from autopilot.contracts import Axis, Stage
from autopilot.profile import Interval, Measurement

LATENCY = Axis("latency_p99_ms", higher_is_better=False, stage=Stage.LATENCY, summary="")
THROUGHPUT = Axis("throughput_rps", higher_is_better=True, stage=Stage.LATENCY, summary="")
QUALITY = Axis("quality", higher_is_better=True, stage=Stage.QUALITY, summary="")
DROP = Axis("quality_drop", higher_is_better=False, stage=Stage.QUALITY, summary="")

finite = st.floats(1e-6, 1e6)


def measurement(value: float, low: float, high: float, axis: str = "latency_p99_ms") -> Measurement:
    return Measurement(axis, value, low, high, 100)


def test_parse_reads_a_bare_number_in_the_natural_direction() -> None:
    """A bare number is at most for latency and at least for throughput."""
    assert Limit.parse(LATENCY, 2.0) == Limit("latency_p99_ms", 2.0, upper=True)
    assert Limit.parse(THROUGHPUT, 500) == Limit("throughput_rps", 500.0, upper=False)


def test_parse_reads_a_share_of_the_baseline() -> None:
    """A percentage of the baseline is a relative limit."""
    limit = Limit.parse(LATENCY, "60% of baseline", 0.02)

    assert (limit.bound, limit.relative, limit.margin) == (0.6, True, 0.02)
    assert limit.text == "<= 60% of baseline"


def test_parse_takes_a_margin_of_its_own_before_the_default() -> None:
    """A limit's own margin wins."""
    assert Limit.parse(LATENCY, {"max": 200, "margin": "10%"}, 0.05).margin == 0.1


@pytest.mark.parametrize(
    ("axis", "raw", "said"),
    [
        (LATENCY, -1, "negative"),
        (LATENCY, 0, "can't be met"),
        (LATENCY, {"min": 3}, "limited by max"),
        (THROUGHPUT, {"max": 3}, "limited by min"),
        (LATENCY, {"max": 1, "mx": 2}, "mx"),
        (LATENCY, {"max": 1, "min": 0.5}, "exactly one"),
        (LATENCY, "fast", "is no limit"),
        (LATENCY, True, "is no limit"),
        (LATENCY, math.nan, "is no limit"),
        (LATENCY, math.inf, "is no limit"),
        (LATENCY, None, "is no limit"),
        (LATENCY, {"max": 1, "margin": "200%"}, "margin"),
        (LATENCY, "0% of baseline", "can't be met"),
        (LATENCY, "80%", "a share such as 60% of baseline"),
        (DROP, "1%", "an absolute loss such as 0.01"),
        (DROP, "50% of baseline", "already relative"),
        (DROP, -0.01, "negative"),
    ],
)
def test_parse_refuses_with_a_sentence(axis: Axis, raw: object, said: str) -> None:
    """A limit that makes no sense is refused in words that name the fault."""
    with pytest.raises(ValueError, match=said):
        Limit.parse(axis, raw)


@given(st.floats(-20, 1e5), st.floats(-20, 1e5))
def test_violation_keeps_the_order_of_what_is_far_out_of_reach(one: float, other: float) -> None:
    """A limit missed 40 times over is missed by less than one missed 100 times over; both stay below the unbounded."""
    limit = Limit.parse(LATENCY, 1.0)

    def missed(value: float) -> float:
        found = limit.violation(measurement(value, value, value))
        assert found is not None
        return found

    assert missed(1 + 40) < missed(1 + 100) < WORST_VIOLATION
    assert (missed(one) <= missed(other)) or one > other
    assert missed(1 + 8) == pytest.approx(8)
    for unknown in (math.inf, math.nan):
        assert limit.violation(measurement(2.0, 1.5, unknown)) == WORST_VIOLATION


def test_parse_allows_a_negative_quality() -> None:
    """A correlation may be negative, so may a limit on it."""
    assert Limit.parse(QUALITY, -0.5).effective == -0.5


@given(bound=finite, margin=st.floats(0, 0.9), value=finite, half=finite)
def test_judge_agrees_with_the_interval_for_upper_limits(
    bound: float, margin: float, value: float, half: float
) -> None:
    """In needs the whole interval inside, out needs all of it outside, else undecided."""
    limit = Limit("latency_p99_ms", bound, upper=True, margin=margin)
    low, high = value - half, value + half

    judged = limit.judge(measurement(value, low, high))

    expected = Judgement.IN if high <= limit.effective else Judgement.UNDECIDED
    assert judged is (Judgement.OUT if low > limit.effective else expected)


@given(bound=finite, margin=st.floats(0, 0.9), value=finite, half=finite)
def test_judge_mirrors_for_lower_limits(bound: float, margin: float, value: float, half: float) -> None:
    """Negating bound and interval turns a lower limit into an upper one."""
    lower = Limit("throughput_rps", bound, upper=False, margin=margin)
    upper = Limit("throughput_rps", -bound, upper=True, margin=margin)

    judged = lower.judge(measurement(value, value - half, value + half))

    assert judged is upper.judge(measurement(-value, -value - half, -value + half))


@given(bound=finite, value=finite, half=st.floats(0, 1e6))
def test_violation_is_positive_exactly_when_not_in(bound: float, value: float, half: float) -> None:
    """The sampler's constraint and the verdict never disagree about feasibility."""
    limit = Limit("latency_p99_ms", bound)
    measured = measurement(value, value - half, value + half)

    violation = limit.violation(measured)

    assert violation is not None
    assert math.isfinite(violation)
    if limit.judge(measured) is not Judgement.IN:
        assert violation > 0 or value + half - bound < 1e-9
    else:
        assert violation <= 0


def test_relative_limit_is_judged_on_the_ratio_alone() -> None:
    """Absolute figures don't decide a relative limit."""
    limit = Limit("latency_p50_ms", 0.6, relative=True)
    fast = Measurement("latency_p50_ms", 9.0, 8.9, 9.1, 10, ratio=Interval(0.5, 0.49, 0.51))
    no_ratio = Measurement("latency_p50_ms", 0.1, 0.1, 0.1, 10)

    assert limit.judge(fast) is Judgement.IN
    assert limit.judge(no_ratio) is Judgement.NOT_MEASURABLE


@given(values=st.lists(st.floats(0.1, 10), min_size=1, max_size=5), half=st.floats(0, 2))
def test_budget_is_in_only_when_every_limit_is(values: list[float], half: float) -> None:
    """Every limit is hard: one out decides, one undecided leaves the variant undecided."""
    axes = [f"latency_p{i + 1}_ms" for i in range(len(values))]
    budget = Budget(tuple(Limit(a, 1.0) for a in axes))
    measured = {a: measurement(v, v - half, v + half, a) for a, v in zip(axes, values, strict=True)}

    verdict = budget.judge(measured)

    judged = set(verdict.per_limit.values())
    if Judgement.OUT in judged:
        assert verdict.overall is Judgement.OUT
    elif judged == {Judgement.IN}:
        assert verdict.overall is Judgement.IN
    else:
        assert verdict.overall is Judgement.UNDECIDED


def test_missing_axis_is_never_in() -> None:
    """A limit on something that could not be measured leaves the variant undecided."""
    budget = Budget((Limit("energy_mj", 1.0),))

    missing = {"energy_mj": Measurement.missing("energy_mj", "no counter")}

    assert budget.judge({}).overall is Judgement.UNDECIDED
    assert budget.judge({}).per_limit["energy_mj"] is Judgement.UNDECIDED
    assert budget.judge(missing).overall is Judgement.UNDECIDED
    assert budget.judge(missing).per_limit["energy_mj"] is Judgement.NOT_MEASURABLE


def test_unbounded_interval_is_undecided_not_in() -> None:
    """Too few samples for an upper bound can't pass."""
    measured = measurement(1.0, 0.9, math.inf)

    assert Limit("latency_p99_ms", 2.0).judge(measured) is Judgement.UNDECIDED


def test_budget_and_verdict_survive_json() -> None:
    """What is stored is what is read."""
    budget = Budget((Limit("latency_p99_ms", 2.0, margin=0.1), Limit("throughput_rps", 0.5, True, False)))
    verdict = budget.judge({"latency_p99_ms": measurement(1.0, 0.9, 1.1)})

    assert Budget.from_json(budget.to_json()) == budget
    assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(("raw", "value"), [("5%", 0.05), ("0%", 0.0), (0.25, 0.25), ("12.5 %", 0.125)])
def test_parse_fraction_reads_percent_and_share(raw: object, value: float) -> None:
    """Both ways of writing a share mean the same."""
    assert parse_fraction(raw) == pytest.approx(value)
