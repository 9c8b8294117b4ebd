"""Who is verified, who wins, and what is said when nothing fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilot.artifact import Artifact
from autopilot.budget import Budget, Limit
from autopilot.errors import Failure
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Deployment, Recipe, Step, Variant
from autopilot.result import TrialRecord, TrialState
from autopilot.search.explain import explain
from autopilot.search.finalists import Verified, choose, line_up, nearest, pareto
from autopilot.search.outcome import Outcome
from autopilot.search.ranking import Ranking

BUDGET = Budget((Limit("latency_p50_ms", 0.6, relative=True), Limit("quality_drop", 0.01)))
RANKING = Ranking("latency_p50_ms", maximize=False)


def record(
    number: int,
    ratio: float,
    drop: float = 0.0,
    *,
    noise: float = 0.01,
    steps: int = 1,
    state: TrialState = TrialState.COMPLETE,
    size: int = 100,
) -> TrialRecord:
    variant = Variant(Recipe(tuple(Step(f"t{i}", (("n", number),)) for i in range(steps))), Deployment("cpu"))
    measured = {
        "latency_p50_ms": Measurement(
            "latency_p50_ms", ratio, ratio, ratio, 9, ratio=Interval(ratio, ratio - noise, ratio + noise)
        ),
        "quality_drop": Measurement("quality_drop", drop, drop - 0.001, drop + 0.001, 9),
    }
    artifact = Artifact(Path("m.onnx"), (Path("m.onnx"),), size, f"sha{number}")
    return TrialRecord(
        id=variant.id,
        number=number,
        state=state,
        failure=None,
        reason="",
        stage="quality",
        variant=variant,
        measured=measured,
        verdict=BUDGET.judge(measured),
        artifact=artifact,
    )


def verified(r: TrialRecord) -> Verified:
    assert r.artifact is not None
    assert r.verdict is not None
    return Verified(r, Outcome(r.variant, r.artifact, dict(r.measured)), r.verdict)


def test_line_up_puts_the_best_in_budget_first_and_leaves_out_the_rest() -> None:
    """Fitting ones by objective, then undecided ones; certain violations are not verified."""
    records = [record(0, 1.0), record(1, 0.5), record(2, 0.3), record(3, 0.2, 0.5), record(4, 0.6, noise=0.05)]

    assert [r.number for r in line_up(records, RANKING)] == [2, 1, 4]


def test_choose_gives_ties_to_the_simpler_variant() -> None:
    """A difference inside the noise does not justify another technique."""
    done = [verified(record(1, 0.300, steps=2)), verified(record(2, 0.305, steps=1)), verified(record(3, 0.5, steps=0))]

    winner = choose(done, RANKING)

    assert winner is not None
    assert winner.record.number == 2


def test_choose_takes_none_that_does_not_hold() -> None:
    """The fastest is worth nothing when the second measurement breaks a limit."""
    done = [verified(record(1, 0.1, drop=0.5)), verified(record(2, 0.4))]

    winner = choose(done, RANKING)

    assert winner is not None
    assert winner.record.number == 2
    assert choose(done[:1], RANKING) is None


def test_nearest_prefers_undecided_then_the_smallest_violation() -> None:
    """The nearest miss is the one that least needs to be forgiven."""
    records = [record(1, 0.9), record(2, 0.7), record(3, 0.65, state=TrialState.PRUNED)]

    found = nearest([], records, RANKING)

    assert isinstance(found, TrialRecord)
    assert found.number == 2
    undecided = verified(record(4, 0.6, noise=0.05))
    assert nearest([undecided], records, RANKING) is undecided
    assert nearest([], [], RANKING) is None


def test_ranking_turns_maximised_axes_round() -> None:
    """More throughput is better: the larger ratio sorts first."""
    ranking = Ranking("throughput_rps", maximize=True)
    fast = ranking.figures(Measurement("throughput_rps", 9, 8, 10, 1, ratio=Interval(2.0, 1.9, 2.1)))
    slow = ranking.figures(Measurement("throughput_rps", 9, 8, 10, 1, ratio=Interval(1.0, 0.9, 1.1)))

    assert fast.value < slow.value
    assert fast.low <= fast.value <= fast.high


def test_pareto_holds_what_nothing_beats_in_both() -> None:
    """A variant that is slower and worse than another is not on the front."""
    records = [record(1, 0.5, 0.00), record(2, 0.3, 0.02), record(3, 0.4, 0.03), record(4, 0.2, 0.05)]

    assert pareto(records, RANKING) == (records[3].id, records[1].id, records[0].id)


def test_explain_names_binding_limits_and_what_would_admit_the_nearest() -> None:
    """The reader learns which limit to relax, and by how much."""
    out = record(1, 0.7)
    assert out.verdict is not None

    miss = (out.measured, out.verdict)
    text = explain([record(0, 1.0), out], BUDGET, status="no_fit", left_out={"cuda": "no driver"}, nearest=miss)

    assert "latency_p50_ms <= 60% of baseline (2)" in text
    assert "71% of baseline would admit it" in text
    assert "cuda (no driver)" in text


def test_explain_counts_failures_by_class() -> None:
    """Failures are part of what bound the search."""
    base = record(0, 0.5)
    failed = TrialRecord(
        id="x",
        number=1,
        state=TrialState.FAILED,
        failure=Failure.OOM,
        reason="",
        stage="build",
        variant=base.variant,
    )

    text = explain([base, failed], BUDGET, status="in_budget", left_out={}, nearest=None)

    assert "2 trials, by the search's own figures: 1 in budget, 0 not, failed: 1 oom." in text
    assert "1 oom" in text


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.DUPLICATE])
def test_line_up_ignores_trials_without_figures_of_their_own(state: TrialState) -> None:
    """Only what was measured itself can be a finalist."""
    assert line_up([record(1, 0.1, state=state)], RANKING) == []
