"""From records to a result: verify the finalists, choose, explain, write the run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopilot.artifact import Artifact
from autopilot.budget import Judgement, Verdict
from autopilot.errors import Failure, VariantFailed
from autopilot.outputs import write_outputs
from autopilot.profile import Interval, Measurement
from autopilot.recipe import Variant
from autopilot.result import Candidate, Status, StudyResult, TrialRecord
from autopilot.search.evaluator import Evaluator
from autopilot.search.explain import explain
from autopilot.search.finalists import Ranking, Verification, Verified, choose, nearest, pareto, verify
from autopilot.search.outcome import Outcome
from autopilot.search.samples import beside_name, save_samples, verified_name
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
    evaluator.deadline = None
    verification = verify(evaluator, records, ranking, out_of_time=lambda: time.monotonic() > deadline)
    winner = choose(verification.done, ranking)
    miss = None if winner else nearest(verification.done, records, ranking, failed=verification.failed)
    if isinstance(miss, TrialRecord):
        miss = _at_hand(evaluator, miss)
    is_unstable = bool(records) and records[-1].failure is Failure.UNSTABLE
    status = Status.UNDECIDED if is_unstable and winner is None else _status(winner, miss)
    records = _with_verified(records, verification)
    chosen = winner or miss
    shown = _facts(chosen) if chosen is not None else None
    baseline, own = _take_costs(evaluator, chosen)
    result = StudyResult(
        status=status,
        name=setup.problem.name,
        objective=setup.problem.objective,
        baseline=_baseline(evaluator, baseline),
        best=_candidate(winner, ranking, "best", own) if winner else None,
        nearest=_candidate(miss, ranking, "nearest", own) if miss else None,
        pareto=pareto(records, ranking),
        trials=tuple(records),
        explanation=explain(
            records,
            setup.problem.budget,
            status=status.value,
            left_out=setup.space.left_out,
            nearest=(shown[1], shown[2]) if shown and not winner else None,
            verified=[v.verdict for v in verification.done],
        ),
        budget=setup.problem.budget,
        environment=_environment(evaluator),
        elapsed_s=time.monotonic() - started,
        warnings=_warnings(evaluator, records, (baseline, own)),
        budget_version=setup.problem.version,
        rationale=setup.problem.rationale or None,
    )
    evaluator.observer.phase("writing the result")
    return write_outputs(result, out, shown[0] if shown else None, preprocessing=_preprocessing(setup.problem))


def _at_hand(evaluator: Evaluator, record: TrialRecord) -> TrialRecord:
    """``record`` with its artifact in place: the cache may have let go of it, or another run's machine has it."""
    if record.artifact is None:
        return record
    try:
        return replace(record, artifact=evaluator.build(record.variant.recipe, {}))
    except VariantFailed as exc:
        evaluator.observer.note(f"the nearest miss (trial {record.number}) couldn't be built again: {exc.message}")
        return replace(record, artifact=None)


def _environment(evaluator: Evaluator) -> dict[str, Any]:
    """The machine, and how far the same model differed from itself on it."""
    control = evaluator.control
    return evaluator.setup.target.to_json() | {"noise": control.to_json() if control is not None else None}


def _warnings(
    evaluator: Evaluator, records: Sequence[TrialRecord], outcomes: Sequence[Outcome | None]
) -> tuple[str, ...]:
    """What a reader should know: of the data, of each trial, and of a machine noisier than a limit's margin."""
    found = [*evaluator.setup.splits.warnings, *(w for r in records for w in r.warnings)]
    found += [w for outcome in outcomes if outcome is not None for w in outcome.warnings]
    margins = [limit.margin for limit in evaluator.setup.problem.budget.limits if limit.axis.startswith("latency_")]
    control = evaluator.control
    if control is not None and margins and control.spread > (narrowest := min(margins)):
        found.append(
            f"two processes of one and the same model differ by {control.spread * 100:.2g}% here (one standard "
            f"deviation), which is more than the margin of {narrowest * 100:g}%"
        )
    return tuple(dict.fromkeys(found))


def _preprocessing(problem: Problem) -> dict[str, Any]:
    """How stored arrays become model inputs, for the winner's users."""
    data = problem.data
    return {
        "inputs": {name: spec.to_json() for name, spec in data.inputs.items()},
        "batched": data.batched,
        "preprocess": data.preprocess,
        "postprocess": data.postprocess,
    }


def _status(winner: Verified | None, miss: Verified | TrialRecord | None) -> Status:
    """No fit only where everything is certainly out; what may fit but isn't shown to is undecided."""
    if winner is not None:
        return Status.IN_BUDGET
    is_out = miss is None or miss.verdict is None or miss.verdict.overall is Judgement.OUT
    return Status.NO_FIT if is_out else Status.UNDECIDED


def _facts(chosen: Verified | TrialRecord) -> tuple[Artifact | None, Mapping[str, Measurement], Verdict]:
    if isinstance(chosen, Verified):
        return chosen.outcome.artifact, chosen.outcome.measured, chosen.verdict
    assert chosen.verdict is not None
    return chosen.artifact, chosen.measured, chosen.verdict


def _take_costs(evaluator: Evaluator, chosen: Verified | TrialRecord | None) -> tuple[Outcome, Outcome | None]:
    """Baseline and chosen variant as they are reported, with stages and operators; None for what has no artifact.

    The baseline's figures are those taken beside the chosen variant's where it was verified.
    """
    own: Outcome | None = None
    baseline = evaluator.baseline
    if isinstance(chosen, Verified):
        own = chosen.outcome
        baseline = evaluator.baseline_beside(own)
    elif chosen is not None and chosen.artifact is not None:
        own = Outcome(
            chosen.variant, chosen.artifact, dict(chosen.measured), baseline_samples=evaluator.baseline_samples
        )
    for outcome in (baseline, own):
        if outcome is not None:
            evaluator.take_costs(outcome)
    if isinstance(chosen, Verified):  # again: with what was read since
        names = (beside_name(chosen.record.number), verified_name(chosen.record.number))
        for name, outcome in zip(names, (baseline, chosen.outcome), strict=True):
            save_samples(evaluator.setup.work, name, outcome, evaluator.setup.problem.budget.judge(outcome.measured))
    return baseline, own


def _candidate(chosen: Verified | TrialRecord, ranking: Ranking, folder: str, own: Outcome | None) -> Candidate:
    artifact, measured, verdict = _facts(chosen)
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
    rates = ("throughput_rps", "max_rate_rps")
    timed = ranking.axis.startswith("latency_") or ranking.axis in rates
    axis = ranking.axis if timed else "latency_p50_ms"
    found = measured.get(axis)
    if found is None or found.ratio is None:
        return None
    if axis in rates:
        return found.ratio
    r = found.ratio
    high = 1 / r.low if r.low > 0 else float("inf")
    return Interval(1 / r.value, 1 / r.high if r.high else 0.0, high) if r.value > 0 else None


def _baseline(evaluator: Evaluator, outcome: Outcome) -> Candidate:
    """The model as given."""
    ranking = Ranking("latency_p50_ms", maximize=False)
    verdict = evaluator.setup.problem.budget.judge(outcome.measured)
    found = candidate(
        outcome.variant, outcome.artifact, outcome.measured, verdict, ranking=ranking, folder="", number=0
    )
    return _with_costs(found, outcome)


def _with_verified(records: Sequence[TrialRecord], verification: Verification) -> list[TrialRecord]:
    """Finalists' records say what became of them; their screening figures stay as they were."""
    said = {number: f"failed when measured again: {reason}" for number, reason in verification.failed.items()}
    for v in verification.done:
        limits = ", ".join(f"{axis} {j.value}" for axis, j in v.verdict.per_limit.items() if j is not Judgement.IN)
        said[v.record.number] = f"measured again: {limits or 'every limit holds'}"
    return [replace(r, stage="verify", reason=said[r.number]) if r.number in said else r for r in records]
