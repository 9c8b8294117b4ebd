"""What the report computes: scales, words, points, knobs, curves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.budget import Budget, Judgement, Limit
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Recipe, Step, params_of
from autopilot.report.charts.gauge import gauge
from autopilot.report.charts.scale import Scale
from autopilot.report.charts.trials import history_chart, trade_off_chart
from autopilot.report.html import clean, el, escaped, joined
from autopilot.report.importance import FEWEST_TRIALS, importance
from autopilot.report.points import Mark, distinct, history, quality_rises, trade_off
from autopilot.report.readings import CURVE_POINTS, ecdf, tail
from autopilot.report.sections.budget import margin_left
from autopilot.report.words import figure, short_recipe, span, title, varied_parameters
from autopilot.result import FAILED_AGAIN, StudyResult
from autopilot.testing import fake_measured, fake_result, fake_trial, fake_variant
from autopilot.words import percent
from tests.report_support import Page, duplicate, searched

finite = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-9)


@given(st.text())
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    """What a reader sees is the text itself, less what no page may hold."""
    page = Page(str(el("p", text, title=text)))

    assert [tag for tag, _ in page.tags] == ["p"]
    assert "".join(page.texts) == clean(text)
    assert page.tags[0][1]["title"] == clean(text)


def test_markup_is_escaped_once() -> None:
    """Elements inside of elements stay elements."""
    assert el("p", el("b", "a & b"), None) == "<p><b>a &amp; b</b></p>"
    assert joined("<", el("br"), ">") == "&lt;<br>&gt;"
    assert escaped(escaped("&")) == "&amp;"


@given(st.lists(finite, min_size=1, max_size=9), st.booleans())
def test_scale_keeps_order_and_bounds(values: list[float], may_be_log: bool) -> None:
    """Every figure lies inside of the axis, larger ones never before smaller ones, and ticks are inside."""
    scale = Scale.over(values, 10, 300, may_be_log=may_be_log)

    at = [scale(v) for v in sorted(values)]
    assert at == sorted(at)
    assert all(10 <= x <= 300 for x in at)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8
    assert ticks == sorted(ticks)
    assert all(scale.low <= t <= scale.high for t in ticks)


def test_scale_holds_unbounded_figures_at_its_ends() -> None:
    """No coordinate is ever infinite."""
    scale = Scale.over([1.0, 100.0, math.inf], 0, 10)

    assert scale.is_log
    assert (scale(math.inf), scale(-math.inf), scale(0.0), scale(math.nan)) == (10, 0, 0, 0)


@pytest.mark.parametrize(
    ("interval", "relative", "text"),
    [
        (Interval(1, 0.9, 1.1), False, "0.9 to 1.1"),
        (Interval(1, 1, 1), False, "1"),
        (Interval(0.5, 0.45, 0.61), True, "45% to 61%"),
        (Interval(1, 0.9, math.inf), False, "0.9 or more"),
        (Interval(1, -math.inf, 1.1), False, "1.1 or less"),
        (Interval(1, 0.0, math.inf), False, "no bounds"),
        (None, False, "–"),
    ],
)
def test_span_says_what_bounds_there_are(interval: Interval | None, relative: bool, text: str) -> None:
    """A side without a bound is told in words."""
    assert span(interval, relative=relative) == text


def test_words_of_axes_and_figures() -> None:
    """Units are told once, figures with the digits that count."""
    assert title("latency_p97.5_ms") == "latency p97.5 (ms)"
    assert title("cost_per_million") == "cost per million"
    assert title("load_s") == "load (s)"
    assert (figure(math.inf), figure(0.0), figure(12345.6)) == ("∞", "0", "12,346")
    assert percent(10.263) == "1,030%"


def test_short_recipe_tells_only_what_differs() -> None:
    """A parameter that all trials share tells none apart."""
    recipes = [Recipe((Step("fuse", params_of({"level": 1, "samples": n})),)) for n in (32, 64)]

    varied = varied_parameters(recipes)

    assert short_recipe(recipes[0], varied) == "fuse (samples 32)"
    assert short_recipe(Recipe(), varied) == "as given"


@pytest.mark.parametrize(
    ("limit", "measured", "text"),
    [
        (Limit("size_mb", 2.0), Measurement("size_mb", 1.5, 1.5, 1.5, 1), "25%"),
        (Limit("size_mb", 2.0, margin=0.05), Measurement("size_mb", 1.5, 1.5, 1.5, 1), "20%"),
        (Limit("size_mb", 0.1), Measurement("size_mb", 3.0, 3.0, 3.0, 1), "missed by 2,900%"),
        (Limit("quality_drop", 0.01), Measurement("quality_drop", 0.0, -0.02, 0.02, 9), "short by 100%"),
        (Limit("throughput_rps", 100, upper=False), Measurement("throughput_rps", 150, 140, 160, 9), "40%"),
        (Limit("latency_p99_ms", 2.0), Measurement("latency_p99_ms", 1.0, 0.9, math.inf, 9), "no bound"),
        (Limit("energy_mj", 2.0), Measurement.missing("energy_mj", "no counter"), "–"),
        (Limit("latency_p50_ms", 0.6, relative=True), Measurement("latency_p50_ms", 1.0, 0.9, 1.1, 9), "–"),
    ],
)
def test_margin_left_is_from_the_unlucky_end_to_the_limit_less_its_margin(
    limit: Limit, measured: Measurement, text: str
) -> None:
    """Not capped, and told apart: missed for certain, or just not shown to be kept."""
    assert margin_left(limit, measured) == text


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("bound", [2.0, 0.0, -0.5])
@pytest.mark.parametrize(
    "found",
    [None, Interval(1, 0.9, 1.1), Interval(0, -math.inf, math.inf), Interval(1e9, 1e9, 1e9), Interval(-3, -4, -2)],
)
def test_gauge_stays_inside_of_its_frame(bound: float, upper: bool, found: Interval | None) -> None:
    """Whatever the figures are."""
    limit = Limit("quality", bound, upper=upper, margin=0.1)

    drawn = Page(str(gauge(limit, found, Judgement.OUT)))

    at = [float(a["cx"] or 0) for t, a in drawn.tags if t == "circle"]
    assert all(0 <= x <= 260 for x in at)
    assert not [v for _, a in drawn.tags for v in a.values() if v and ("nan" in v or "inf" in v)]
    assert drawn.count("circle") == (found is not None)


def test_front_holds_what_no_other_trial_beats() -> None:
    """Checked against the definition, trial by trial."""
    rng = np.random.default_rng(3)
    records = []
    for i in range(30):
        measured = fake_measured(latency_ms=float(rng.uniform(0.2, 2)))
        score = float(rng.uniform(0.8, 1))
        records.append(fake_trial(i, fake_variant("t", i=i), measured | {"quality": Measurement("quality", score)}))

    points = trade_off(replace(fake_result(), trials=tuple(records)), "latency_p50_ms", "quality")

    assert len(points) == 30
    for p in points:
        beaten = any(q.x.value < p.x.value and q.y.value > p.y.value for q in points)
        assert p.is_front is not beaten


def with_scores(rises: bool) -> StudyResult:
    """Trials whose drop is a loss of a metric that rises or falls."""
    records = [fake_trial(0, fake_variant(), fake_measured(latency_ms=1.0))]
    records += [fake_trial(i, fake_variant("t", i=i), fake_measured(latency_ms=1.0, drop=0.01 * i)) for i in (1, 2)]
    sign = -1 if rises else 1
    scored = []
    for r in records:
        drop = r.measured["quality_drop"].value
        assert drop is not None
        scored.append(replace(r, measured={**r.measured, "quality": Measurement("quality", 0.9 + sign * drop)}))
    return replace(fake_result(), trials=tuple(scored))


@pytest.mark.parametrize("rises", [True, False])
def test_direction_of_the_metric_follows_from_its_drops(rises: bool) -> None:
    """An error rate that grows with the drop is better when less."""
    assert quality_rises(with_scores(rises)) is rises


def test_history_keeps_the_best_in_budget_and_leaves_repeats_out() -> None:
    """The line never rises for a latency; a repeated trial is no step."""
    result = duplicate(searched(30))

    steps = history(result)

    best = [s.best for s in steps if s.best is not None]
    assert len(steps) == len(distinct(result)) == 30
    assert best == sorted(best, reverse=True)
    assert {s.mark for s in steps} <= set(Mark)


def test_importance_finds_the_knobs_that_matter_and_calls_the_others_chance() -> None:
    """The technique, then the setting that changes the latency; a setting that does nothing isn't clear."""
    found = importance(searched(40), "latency_p50_ms")

    by = {k.name: k for k in found.knobs}
    assert "technique" in [k.name for k in found.knobs[:3]]
    assert by["technique"].explained > 0.8
    assert by["static_int8.per_channel"].is_clear
    assert by["static_int8.per_channel"].explained > 0.9
    assert not by["static_int8.noise"].is_clear
    assert found.is_ratio


def test_importance_rarely_finds_what_is_not_there() -> None:
    """Over knobs that do nothing, no more are called clear than the level says (5%; here 160 knobs)."""
    rng = np.random.default_rng(5)
    clear = total = 0
    for _ in range(20):
        records = []
        for i in range(25):
            knobs = {f"k{j}": int(rng.integers(2 + j % 3)) for j in range(8)}
            measured = fake_measured(latency_ms=float(np.exp(rng.normal())))
            records.append(fake_trial(i, fake_variant("t", **knobs), measured))
        found = importance(replace(fake_result(), trials=tuple(records)), "latency_p50_ms").knobs
        clear += sum(k.is_clear for k in found)
        total += len(found)

    assert total == 160
    # Binomial(160, 0.05) is above 18 with a chance of 0.04%; the seed is fixed.
    assert clear <= 18


def test_importance_credits_no_setting_with_its_technique() -> None:
    """A setting that only one technique has, and that changes nothing there, explains nothing."""
    found = importance(searched(40), "latency_p50_ms")

    noise = next(k for k in found.knobs if k.name == "dynamic_int8.noise")
    assert noise.explained < 0.3


@pytest.mark.parametrize("trials", range(FEWEST_TRIALS))
def test_importance_says_nothing_from_a_handful(trials: int) -> None:
    """Too few trials give no knobs, and their number."""
    found = importance(replace(fake_result(), trials=searched(trials).trials[:trials]), "latency_p50_ms")

    assert (found.knobs, found.trials) == ((), trials)


def test_number_with_many_values_is_told_by_its_thirds() -> None:
    """Else each trial were a group of its own."""
    records = [fake_trial(i, fake_variant("t", x=i / 7), fake_measured(latency_ms=1.0 + i)) for i in range(21)]

    found = importance(replace(fake_result(), trials=tuple(records)), "latency_p50_ms")

    knob = next(k for k in found.knobs if k.name == "t.x")
    assert [v.trials for v in knob.values] == [7, 7, 7]
    assert knob.is_clear


@given(st.lists(st.floats(1e-6, 10, allow_nan=False), min_size=1, max_size=400))
def test_curves_are_the_readings_own(values: list[float]) -> None:
    """Every point is a reading with the share of readings that are at most as large; the slowest is there."""
    s = np.sort(np.array(values))

    x, share = ecdf(s)
    slow, slower = tail(s)

    assert len(x) <= CURVE_POINTS
    assert set(x) | set(slow) <= set(s)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(share) > 0).all()
    assert share[-1] == 1
    assert slower[-1] == 1 / s.size
    assert slow[-1] == s[-1]
    assert ((slower > 0) & (slower <= 1)).all()


def test_budget_of_one_limit_reads_as_one() -> None:
    """Grammar: its one limit, not all 1 limits."""
    from autopilot.report import Content
    from autopilot.report.sections.verdict import sentence

    result = replace(fake_result(), budget=Budget((Limit("size_mb", 5.0),)))

    assert "its one limit" in sentence(Content(result))


def test_charts_name_the_mark_of_a_finalist_that_failed_when_it_was_measured_again() -> None:
    """It has the search's figures, so that it stands among the others in the trade-off too."""
    result = searched(6)
    failed = replace(result.trials[3], stage="verify", reason=f"{FAILED_AGAIN}: crash: it died.")
    trials = tuple(failed if t.number == 3 else t for t in result.trials)

    for chart in (trade_off_chart, history_chart):
        before, after = (str(chart(replace(result, trials=found))) for found in (result.trials, trials))
        assert (before.count("</svg>failed<"), after.count("</svg>failed<")) == (0, 1)
