"""The lines about trials: short, with figures against limits, nothing that was not measured."""

from __future__ import annotations

from autopilot.recipe import Deployment, Recipe, Step, Variant
from autopilot.search.ranking import Ranking
from autopilot.search.texts import against_budget, baseline_text, best_text, deployment_text, recipe_text, variant_text
from autopilot.testing import FAKE_BUDGET, fake_measured, fake_measurement, fake_trial, fake_variant
from tests.unit.search_support import SPACE

RANKING = Ranking("latency_p50_ms", maximize=False)


def test_recipe_names_only_what_is_not_the_default() -> None:
    """Ten parameters a step hide the one that tells two trials apart."""
    usual = Recipe((Step("slim", (("kind", "a"),)), Step("int8", (("kind", "b"),))))

    assert recipe_text(usual, SPACE) == "slim > int8(kind=b)"
    assert recipe_text(Recipe(), SPACE) == "the model as given"


def test_variant_is_told_in_one_line_whatever_its_provider() -> None:
    """The baseline's may be none of the space's."""
    recipe = Recipe((Step("int8", (("kind", "b"),)),))

    assert variant_text(Variant(recipe, Deployment("elsewhere", 2, 1)), SPACE) == "int8(kind=b) on elsewhere, 2 threads"
    usual = SPACE.default_deployment()
    assert variant_text(Variant(Recipe(), usual), SPACE).startswith(f"the model as given on {usual.provider}, ")


def test_deployment_names_only_what_is_unusual() -> None:
    """Batch 1 and the default options go without saying."""
    usual = Deployment("cpu", 1, 1, (("arena", True), ("spinning", True)))

    assert deployment_text(usual, usual) == "cpu, 1 thread"
    other = Deployment("cpu", 2, 8, (("arena", True), ("spinning", False)))
    assert deployment_text(other, usual) == "cpu, 2 threads, batch 8, spinning=False"


def test_baseline_shows_its_score_first() -> None:
    """A poor score is what wrong preprocessing looks like."""
    measured = fake_measured(latency_ms=0.25) | {"quality": fake_measurement("quality", 0.4556)}

    text = baseline_text(measured, "accuracy", RANKING, FAKE_BUDGET)

    assert text == "the model as given: accuracy 0.4556, latency_p50_ms 0.25, size_mb 2"


def test_best_stands_against_every_limit() -> None:
    """Relative limits show the ratio they are judged on."""
    slow = fake_trial(1, fake_variant("int8", kind="b"), fake_measured(latency_ms=0.6))
    fast = fake_trial(2, fake_variant("int8", kind="c"), fake_measured(latency_ms=0.4))

    text = best_text([slow, fast], RANKING, FAKE_BUDGET, SPACE)

    latency, rest = "latency_p50_ms 40% of baseline (<= 70%)", "quality_drop 0 (<= 0.02), size_mb 2 (<= 5)"
    assert text == f"trial 2, int8(kind=c): {latency}, {rest}"
    assert best_text([], RANKING, FAKE_BUDGET, SPACE) is None


def test_trial_tells_nothing_of_what_was_not_measured() -> None:
    """An axis that an early end left out is not called undecided."""
    measured = fake_measured(latency_ms=0.9)
    del measured["quality_drop"]

    text = against_budget(fake_trial(1, fake_variant("int8", kind="b"), measured), FAKE_BUDGET)

    assert text == "latency_p50_ms 90% of baseline (out), size_mb 2 (in)"
