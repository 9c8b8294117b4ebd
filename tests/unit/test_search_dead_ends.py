"""Dead ends: what refused to be built isn't tried again, nor what is like it."""

from __future__ import annotations

from autopilot.domain import Scalar
from autopilot.errors import Failure
from autopilot.recipe import Deployment, Recipe, Step, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.dead_ends import DeadEnds


def step(name: str, **params: Scalar) -> Step:
    return Step(name, params_of(params))


def refused(*steps: Step, reason: str) -> TrialRecord:
    variant = Variant(Recipe(steps), Deployment("cpu", 1, 1))
    return TrialRecord("1", 1, TrialState.FAILED, Failure.UNSUPPORTED, reason, "build", variant)


def learned(*records: TrialRecord) -> DeadEnds:
    ends = DeadEnds()
    for record in records:
        ends.learn(record)
    return ends


def test_step_that_refused_is_a_dead_end_whatever_follows() -> None:
    """The technique that is named in the reason refused, not those that were to follow."""
    ends = learned(refused(step("heads", keep=0.5), step("int8"), reason="heads: no attention"))

    assert ends.reason(Recipe((step("heads", keep=0.5),)))
    assert ends.reason(Recipe((step("heads", keep=0.5), step("fuse"))))
    assert ends.reason(Recipe((step("int8"),))) is None
    assert ends.reason(Recipe((step("heads", keep=0.6),))) is None


def test_two_refusals_for_one_reason_rule_out_what_they_share() -> None:
    """Depth was refused twice, whatever share was kept; width was not."""
    ends = learned(
        refused(step("distil", student="depth", keep=0.5), reason="distil: no blocks"),
        refused(step("distil", student="depth", keep=0.3), step("int8"), reason="distil: no blocks"),
    )

    assert ends.reason(Recipe((step("distil", student="depth", keep=0.8),)))
    assert ends.reason(Recipe((step("distil", student="width", keep=0.5),))) is None


def test_refusal_after_other_steps_says_nothing_of_the_model_as_given() -> None:
    """What a pruned model can't take the model as given may."""
    ends = learned(
        refused(step("prune"), step("fuse", method="a"), reason="fuse: nothing"),
        refused(step("prune"), step("fuse", method="b"), reason="fuse: nothing"),
    )

    assert ends.reason(Recipe((step("prune"), step("fuse", method="c"))))
    assert ends.reason(Recipe((step("fuse", method="a"),))) is None
