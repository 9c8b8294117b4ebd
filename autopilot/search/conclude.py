"""From records to a result: verify the finalists, choose, explain, write the run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopilot.artifact import Artifact
from autopilot.budget import Judgement
from autopilot.errors import VariantFailed
from autopilot.outputs import write_outputs
from autopilot.result import FAILED_AGAIN, HELD_AGAIN, StudyResult, TrialRecord
from autopilot.search.decide import decide
from autopilot.search.earlier import keep_earlier
from autopilot.search.evaluator import Evaluator
from autopilot.search.explain import explain
from autopilot.search.finalists import Verification, Verified, pareto
from autopilot.search.misses import judged
from autopilot.search.older import removal_text, remove_older
from autopilot.search.outcome import Outcome
from autopilot.search.outlook import ways_out
from autopilot.search.ranking import Ranking
from autopilot.search.relax import binding
from autopilot.search.reported import (
    baseline_candidate,
    candidate_of,
    facts_of_variant,
    fallback_of,
    front_members,
    number_of,
)
from autopilot.search.reporting import seen_from
from autopilot.search.reserve import AFTER_S, building_s, verifying_s
from autopilot.search.rivals import choice_of
from autopilot.search.samples import beside_name, place_second, save_samples, verified_name, waiting_name
from autopilot.search.stages import stage_costs
from autopilot.search.timetable import LATE_SHARE, Timetable, overrun
from autopilot.search.too_short import too_short_text
from autopilot.search.untried import untried
from autopilot.search.warned import Warned, in_one_line_each
from autopilot.spec import Problem


def conclude(
    evaluator: Evaluator,
    records: Sequence[TrialRecord],
    ranking: Ranking,
    *,
    started: float,
    deadline: float,
    out: Path,
    ended: str = "",
    cut_off_s: float = 0.0,
) -> StudyResult:
    """Verify, choose and write the run folder; the result is on disk when this returns.

    ``ended`` says why the search did, ``cut_off_s`` how long the trial took that it cut off.
    """
    setup, problem = evaluator.setup, evaluator.setup.problem
    evaluator.allowance.deadline = None
    searched_s = time.monotonic() - started
    choice = choice_of(evaluator, records)
    found = decide(evaluator, records, ranking, timetable=_timetable(evaluator, deadline), ended=ended)
    records = _with_verified(records, found.verification)
    if isinstance(found.miss, TrialRecord):
        found = replace(found, miss=_at_hand(evaluator, found.miss))
    chosen = found.chosen
    artifact, measured, verdict = facts_of_variant(chosen) if chosen is not None else (None, None, None)
    baseline, own = _take_costs(evaluator, chosen)
    members = front_members(records, found.verification, ranking) if ranking.further else ()
    variants = judged(records, found.verification)
    relaxed = () if found.winner else ways_out(variants, problem.budget, ranking, held_back=setup.splits.test.n)
    too_short = "" if found.winner else too_short_text(evaluator, records, ended, (searched_s, cut_off_s))
    not_tried = (*setup.space.not_tried, *untried(setup.space, records, ended, setup.target))
    warnings = _warnings(evaluator, records, (baseline, own), number_of(chosen))
    result = StudyResult(
        status=found.status,
        name=problem.name,
        spec=seen_from(Path.cwd(), problem.path),
        objective=problem.objective,
        more_objectives=problem.more_objectives,
        baseline=baseline_candidate(evaluator, baseline),
        baseline_choice=choice,
        best=candidate_of(found.winner, ranking, "best", own) if found.winner else None,
        nearest=candidate_of(found.miss, ranking, "nearest", own) if found.miss else None,
        pareto=tuple(m.id for m in members) if ranking.further else pareto(records, ranking),
        front=members,
        fallbacks=tuple(fallback_of(i, rung, ranking) for i, rung in enumerate(found.rungs, 1)),
        comparisons=found.comparisons,
        binding=(turned_away := binding([v.verdict for v in variants], problem.budget)),
        relaxations=relaxed,
        not_tried=not_tried,
        stages=stage_costs(records),
        ended=ended,
        trials=tuple(records),
        explanation=explain(
            records,
            problem.budget,
            status=found.status.value,
            ended=ended,
            left_out={gap.name: gap.reason for gap in (setup.space.not_tried if too_short else not_tried)},
            nearest=(measured, verdict) if measured is not None and verdict is not None else None,
            verified=[v.verdict for v in found.verification.done],
            binding=turned_away,
            relaxations=relaxed,
            baseline=choice.reason,
            failed=found.verification.failed,
            too_short=too_short,
        ),
        budget=problem.budget,
        environment=_environment(evaluator),
        elapsed_s=(elapsed_s := time.monotonic() - started),
        warnings=(*warnings, *overrun(problem.search.timeout_s, searched_s, elapsed_s)),
        budget_version=problem.version,
        rationale=problem.rationale or None,
    )
    rungs = [files for rung in found.rungs if (files := facts_of_variant(rung.found)[0]) is not None]
    return _write(evaluator, result, out, artifact, rungs)


def _write(
    evaluator: Evaluator, result: StudyResult, out: Path, artifact: Artifact | None, rungs: Sequence[Artifact]
) -> StudyResult:
    """The run folder, with ``result`` in place of an earlier one, which is kept or, of the same study, gone on from.

    The finalists' second readings take their places right after it: until then they are the earlier result's.
    """
    evaluator.observer.phase("writing the result")
    if (kept := keep_earlier(out)) is not None:
        evaluator.observer.note(f"the earlier result of this folder is kept in {kept}")
    preprocessing = _preprocessing(evaluator.setup.problem)
    written = write_outputs(result, out, artifact, preprocessing=preprocessing, fallbacks=rungs)
    place_second(evaluator.setup.work)
    if gone := remove_older(out):
        evaluator.observer.note(removal_text(gone))
    return written


def _timetable(evaluator: Evaluator, deadline: float) -> Timetable:
    """For what there is time until ``deadline``, with some left for what comes after the last finalist."""
    setup = evaluator.setup
    return Timetable(
        lambda record: building_s(record) + verifying_s(setup, record, evaluator.baseline),
        deadline - AFTER_S,
        late_s=LATE_SHARE * setup.problem.search.timeout_s,
        clock=time.monotonic,
    )


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
    evaluator: Evaluator, records: Sequence[TrialRecord], outcomes: tuple[Outcome, Outcome | None], chosen: int | None
) -> tuple[str, ...]:
    """What a reader should know: of the data, of trials, and of a machine noisier than a limit's margin.

    ``outcomes``: the baseline's, and that of the trial ``chosen``, as they are reported.
    """
    baseline, own = outcomes
    found = [Warned(text, r.number) for r in records for text in r.warnings]
    found += [Warned(text, 0) for text in baseline.warnings]
    if own is not None and chosen is not None:
        found += [Warned(text, chosen, again=True) for text in own.warnings]
    margins = [limit.margin for limit in evaluator.setup.problem.budget.limits if limit.axis.startswith("latency_")]
    control = evaluator.control
    noisy = []
    if control is not None and margins and control.spread > (narrowest := min(margins)):
        noisy.append(
            f"two processes of one and the same model differ by {control.spread * 100:.2g}% here (one standard "
            f"deviation), which is more than the margin of {narrowest * 100:g}%"
        )
    return tuple(dict.fromkeys([*evaluator.setup.splits.warnings, *in_one_line_each(found), *noisy]))


def _preprocessing(problem: Problem) -> dict[str, Any]:
    """How stored arrays become model inputs, for the winner's users."""
    data = problem.data
    return {
        "inputs": {name: spec.to_json() for name, spec in data.inputs.items()},
        "batched": data.batched,
        "preprocess": data.preprocess,
        "postprocess": data.postprocess,
    }


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
            verdict = evaluator.setup.problem.budget.judge(outcome.measured)
            save_samples(evaluator.setup.work, waiting_name(name), outcome, verdict)
    return baseline, own


def _with_verified(records: Sequence[TrialRecord], verification: Verification) -> list[TrialRecord]:
    """Finalists' records say what became of them; their screening figures and verdict stay as they were."""
    again = {v.record.number: v.verdict for v in verification.all}
    said = {number: f"{FAILED_AGAIN}: {reason}" for number, reason in verification.failed.items()}
    for v in verification.all:
        limits = ", ".join(f"{axis} {j.value}" for axis, j in v.verdict.per_limit.items() if j is not Judgement.IN)
        said[v.record.number] = f"measured again: {limits}" if limits else HELD_AGAIN
    return [
        replace(r, stage="verify", reason=said[r.number], verified=again.get(r.number)) if r.number in said else r
        for r in records
    ]
