"""Variants as the result reports them: the baseline, the chosen one, fallbacks, members of the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autopilot.artifact import Artifact
from autopilot.budget import Verdict
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Variant
from autopilot.result import Candidate, Fallback, FrontMember, TrialRecord
from autopilot.search.evaluator import Evaluator
from autopilot.search.finalists import Verification, Verified, front_of
from autopilot.search.ladder import Rung
from autopilot.search.outcome import Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.summary import times_as_fast


def facts_of_variant(chosen: Verified | TrialRecord) -> tuple[Artifact | None, Mapping[str, Measurement], Verdict]:
    """Files, figures and verdict of a variant; the second measurement's where there was one."""
    if isinstance(chosen, Verified):
        return chosen.outcome.artifact, chosen.outcome.measured, chosen.verdict
    assert chosen.verdict is not None
    return chosen.artifact, chosen.measured, chosen.verdict


def number_of(chosen: Verified | TrialRecord | None) -> int | None:
    """The number of the trial that was chosen, if any."""
    record = chosen.record if isinstance(chosen, Verified) else chosen
    return None if record is None else record.number


def front_members(
    records: Sequence[TrialRecord], verification: Verification, ranking: Ranking
) -> tuple[FrontMember, ...]:
    """The front of all variants that keep the budget, with the figures that it was drawn from."""
    axes = dict.fromkeys([*ranking.axes, *(["quality_drop"] if "quality" in ranking.axes else [])])
    again = {v.record.number: v for v in verification.all}
    found = {r.number: r for r in records}
    members = []
    for m in front_of([r for r in records if r.number not in verification.failed], verification.all, ranking):
        number = m.point.number
        seen = again[number].outcome.measured if number in again else found[number].measured
        measured = {axis: seen[axis] for axis in axes if axis in seen}
        members.append(FrontMember(found[number].id, number, measured, m.certain, m.point.verified))
    return tuple(members)


def fallback_of(place: int, rung: Rung, ranking: Ranking) -> Fallback:
    """A rung of the ladder below the winner; ``place`` 1 is the first."""
    found = candidate_of(rung.found, ranking, f"fallbacks/{place}", None)
    return Fallback(found, isinstance(rung.found, Verified), rung.reason)


def candidate_of(chosen: Verified | TrialRecord, ranking: Ranking, folder: str, own: Outcome | None) -> Candidate:
    """What the result says of a chosen variant, with the figures and costs of ``own``, where it was read again."""
    artifact, measured, verdict = facts_of_variant(chosen)
    record = chosen.record if isinstance(chosen, Verified) else chosen
    measured = own.measured if own is not None else measured
    found = candidate(record.variant, artifact, measured, verdict, ranking=ranking, folder=folder, number=record.number)
    return _with_costs(found, own)


def _with_costs(found: Candidate, outcome: Outcome | None) -> Candidate:
    if outcome is None or outcome.profile is None:
        return found
    return replace(found, stages=outcome.profile.stages, operators=outcome.profile.operators)


def candidate(
    variant: Variant,
    artifact: Artifact | None,
    measured: Mapping[str, Measurement],
    verdict: Verdict | None,
    *,
    ranking: Ranking,
    folder: str,
    number: int | None,
) -> Candidate:
    """What the result says of one variant; ``folder`` is where its artifact is copied to."""
    return Candidate(
        id=variant.id,
        recipe=variant.recipe,
        deployment=variant.deployment,
        artifact=f"{folder}/model.onnx" if folder else str(artifact.path if artifact else ""),
        sha256=artifact.sha256 if artifact else "",
        measured=measured,
        verdict=verdict,
        speedup=speedup(measured, ranking),
        number=number,
    )


def speedup(measured: Mapping[str, Measurement], ranking: Ranking) -> Interval | None:
    """How many times faster than the baseline, from interleaved readings.

    Of the objective where it is a time or a rate, else of the median latency.
    """
    return times_as_fast(measured, ranking.speed.axis)


def baseline_candidate(evaluator: Evaluator, outcome: Outcome) -> Candidate:
    """The baseline, whichever it is."""
    ranking = Ranking("latency_p50_ms", maximize=False)
    verdict = evaluator.setup.problem.budget.judge(outcome.measured)
    found = candidate(
        outcome.variant, outcome.artifact, outcome.measured, verdict, ranking=ranking, folder="", number=0
    )
    return _with_costs(found, outcome)
