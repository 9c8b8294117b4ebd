"""A distillation that left the weights as they were: refused where the step is then no step at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilot.contracts import BuildContext
from autopilot.domain import Scalar
from autopilot.errors import Unsupported
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.dead_ends import DeadEnds
from autopilot.techniques import distill
from autopilot.torch_model.distil import Trained

PRUNE = Step("prune_channels", params_of({"ratio": 0.3}))


def params(**changes: Scalar) -> dict[str, Scalar]:
    usual = {name: domain.default for name, domain in distill.PARAMETERS.items()}
    return {**usual, "student": "same", **changes}


def told(given: dict[str, Scalar]) -> list[str]:
    """What is said of a training by ``given`` that brought nothing."""
    said: list[str] = []
    context = BuildContext(None, Path("unused"), 1, tell=said.append)
    distill._refuse_or_tell(Trained(0.912, 0.908, changed=False), given, 0.93, context)
    return said


def refused(**changes: Scalar) -> TrialRecord:
    """The record of such a trial, as a build that names the technique leaves it."""
    given = params(**changes)
    with pytest.raises(Unsupported) as caught:
        told(given)
    variant = Variant(Recipe((PRUNE, Step("distill", params_of(given)))), Deployment("cpu", 1, 1))
    reason = f"distill: {caught.value}"
    return TrialRecord("1", 1, TrialState.FAILED, caught.value.failure, reason, "build", variant)


def recipe(**changes: Scalar) -> Recipe:
    return Recipe((PRUNE, Step("distill", params_of(params(**changes))), Step("static_int8")))


def test_refusal_says_what_was_tried_how_it_went_and_what_would_help() -> None:
    """Both scores, the teacher's, the settings, and a next step."""
    reason = refused(effort=2, learning_rate=1e-3).reason

    for part in (
        "changed nothing",
        "effort 2",
        "rate 0.001",
        "90.80% at best",
        "91.20% before",
        "93.00%",
        "more effort",
    ):
        assert part in reason


@pytest.mark.parametrize("student", ["depth", "width", "code"])
def test_student_that_is_another_network_is_kept_untrained(student: str) -> None:
    """It lacks what was taken out whatever training brought: its own figures decide, and the build says so."""
    (line,) = told(params(student=student))

    assert "stays untrained" in line
    assert "91.20% before" in line


def test_same_settings_are_not_tried_again_whatever_follows() -> None:
    """The search learns the refusal."""
    ends = DeadEnds()
    ends.learn(refused(effort=1))

    assert ends.reason(recipe(effort=1))


def test_more_effort_and_other_rates_stay_open_after_any_number_of_refusals() -> None:
    """Refusals at other efforts, rates, losses and batches never add up to one reason for all of them."""
    ends = DeadEnds()
    for given in ({"effort": 1}, {"effort": 2}, {"effort": 1, "loss": "dkd"}, {"effort": 1, "learning_rate": 3e-4}):
        ends.learn(refused(**given))

    assert ends.reason(recipe(effort=3)) is None
    assert ends.reason(recipe(effort=3, loss="dkd")) is None
    assert ends.reason(recipe(effort=1, learning_rate=1e-4)) is None
