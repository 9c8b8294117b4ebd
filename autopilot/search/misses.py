"""Near misses, measured to the end where nothing fits: a trial that ended early doesn't say what it would take."""

from __future__ import annotations

from collections.abc import Sequence

from autopilot.budget import Judgement
from autopilot.errors import VariantFailed
from autopilot.result import TrialRecord, TrialState
from autopilot.search.evaluator import Evaluator
from autopilot.search.finalists import Verification, Verified, verify_one
from autopilot.search.relax import Judged, near_misses
from autopilot.search.timetable import Timetable


def look_closer(
    evaluator: Evaluator,
    records: Sequence[TrialRecord],
    verification: Verification,
    *,
    timetable: Timetable,
) -> Verification:
    """``verification`` with the nearest misses measured again, every limit of them, while there is time.

    Only where everything is certainly out: while something may fit, that is the nearest miss.
    """
    if any(v.verdict.overall is not Judgement.OUT for v in verification.done):
        return verification
    again = {v.record.number for v in verification.done}.union(verification.failed)
    more: list[Verified] = []
    failed: dict[int, str] = {}
    for record in near_misses(records, known=again):
        if not timetable.has_for(record):
            break
        evaluator.observer.phase(f"nothing fits; measuring trial {record.number}, a near miss, to the end")
        try:
            more.append(verify_one(evaluator, record, timetable))
        except VariantFailed as exc:
            failed[record.number] = f"{exc.failure.value}: {exc.message}"
            evaluator.observer.note(f"trial {record.number} failed when measured again: {exc.message}")
    return verification.with_more(more, failed)


def judged(records: Sequence[TrialRecord], verification: Verification) -> list[Judged]:
    """Every variant with a verdict, by its second measurement where there is one."""
    again = {v.record.number: v for v in verification.all}
    found = []
    for r in records:
        if r.number in again:
            v = again[r.number]
            found.append(Judged(r, v.outcome.measured, v.verdict, verified=True))
        elif r.number not in verification.failed and r.verdict is not None and r.state is not TrialState.DUPLICATE:
            found.append(Judged(r, r.measured, r.verdict))
    return found
