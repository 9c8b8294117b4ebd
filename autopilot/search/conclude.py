"""From records to a result: verify the finalists, choose, explain, write the run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopilot.artifact import Artifact
from autopilot.budget import Judgement, Verdict
from autopilot.outputs import write_outputs
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Variant
from autopilot.result import Candidate, Status, StudyResult, TrialRecord, TrialState
from autopilot.search.evaluator import Evaluator
from autopilot.search.explain import explain
from autopilot.search.finalists import Ranking, Verified, choose, nearest, pareto, verify
from autopilot.spec import Problem


def conclude(
    evaluator: Evaluator,
    records: Sequence[TrialRecord],
    ranking: Ranking,
    *,
    started: float,
    deadline: float,
    out: Path,
) -> StudyResult:
    """Verify, choose and write the run folder; the result is on disk when this returns."""
    setup = evaluator.setup
    evaluator.limits = setup.limits
    verified = verify(evaluator, records, ranking, out_of_time=lambda: time.monotonic() > deadline)
    winner = choose(verified, ranking)
    miss = None if winner else nearest(verified, records, ranking)
    status = _status(winner, verified, miss)
    records = _with_verified(records, verified)
    chosen = winner or miss
    shown = _facts(chosen) if chosen is not None else None
    result = StudyResult(
        status=status,
        name=setup.problem.name,
        objective=setup.problem.objective,
        baseline=_baseline(evaluator, winner or miss),
        best=_candidate(winner, ranking, "best") if winner else None,
        nearest=_candidate(miss, ranking, "nearest") if miss else None,
        pareto=pareto(records, ranking),
        trials=tuple(records),
        explanation=explain(
            records,
            setup.problem.budget,
            status=status.value,
            left_out=setup.space.left_out,
            nearest=(shown[1], shown[2]) if shown and not winner else None,
        ),
        budget=setup.problem.budget,
        environment=setup.target.to_json(),
        elapsed_s=time.monotonic() - started,
        warnings=tuple(dict.fromkeys([*setup.splits.warnings, *(w for r in records for w in r.warnings)])),
        budget_version=setup.problem.version,
        rationale=setup.problem.rationale or None,
    )
    evaluator.observer.phase("writing the result")
    return write_outputs(result, out, shown[0] if shown else None, preprocessing=_preprocessing(setup.problem))


def _preprocessing(problem: Problem) -> dict[str, Any]:
    """How stored arrays become model inputs, for the winner's users."""
    data = problem.data
    return {
        "inputs": {name: spec.to_json() for name, spec in data.inputs.items()},
        "batched": data.batched,
        "preprocess": data.preprocess,
        "postprocess": data.postprocess,
    }


def _status(winner: Verified | None, verified: Sequence[Verified], miss: Verified | TrialRecord | None) -> Status:
    """Undecided only where noise or a missing instrument is what stands between a variant and the budget."""
    if winner is not None:
        return Status.IN_BUDGET
    if any(v.verdict.overall is Judgement.UNDECIDED for v in verified):
        return Status.UNDECIDED
    if isinstance(miss, TrialRecord) and miss.verdict is not None:
        undecided = miss.state is TrialState.COMPLETE and miss.verdict.overall is Judgement.UNDECIDED
        return Status.UNDECIDED if undecided and not verified else Status.NO_FIT
    return Status.NO_FIT


def _facts(chosen: Verified | TrialRecord) -> tuple[Artifact | None, Mapping[str, Measurement], Verdict]:
    if isinstance(chosen, Verified):
        return chosen.outcome.artifact, chosen.outcome.measured, chosen.verdict
    assert chosen.verdict is not None
    return chosen.artifact, chosen.measured, chosen.verdict


def _candidate(chosen: Verified | TrialRecord, ranking: Ranking, folder: str) -> Candidate:
    artifact, measured, verdict = _facts(chosen)
    record = chosen.record if isinstance(chosen, Verified) else chosen
    return candidate(record.variant, artifact, measured, verdict, ranking=ranking, folder=folder, number=record.number)


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
    timed = ranking.axis.startswith("latency_") or ranking.axis == "throughput_rps"
    axis = ranking.axis if timed else "latency_p50_ms"
    found = measured.get(axis)
    if found is None or found.ratio is None:
        return None
    if axis == "throughput_rps":
        return found.ratio
    r = found.ratio
    high = 1 / r.low if r.low > 0 else float("inf")
    return Interval(1 / r.value, 1 / r.high if r.high else 0.0, high) if r.value > 0 else None


def _baseline(evaluator: Evaluator, chosen: Verified | TrialRecord | None) -> Candidate:
    """The model as given, with the figures taken beside the chosen variant's where it was verified."""
    outcome = evaluator.baseline
    if isinstance(chosen, Verified):
        outcome = evaluator.baseline_beside(chosen.outcome)
    ranking = Ranking("latency_p50_ms", maximize=False)
    verdict = evaluator.setup.problem.budget.judge(outcome.measured)
    return candidate(outcome.variant, outcome.artifact, outcome.measured, verdict, ranking=ranking, folder="", number=0)


def _with_verified(records: Sequence[TrialRecord], verified: Sequence[Verified]) -> list[TrialRecord]:
    """Finalists' records carry the stage they reached; their screening figures stay as they were."""
    stages = {v.record.number: v.record for v in verified}
    return [replace(r, stage=stages[r.number].stage) if r.number in stages else r for r in records]
