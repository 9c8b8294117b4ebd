"""After the search: what is measured again, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autopilot.budget import Judgement
from autopilot.errors import Failure
from autopilot.result import Comparison, Status, TrialRecord, is_out_of_time
from autopilot.search.evaluator import Evaluator
from autopilot.search.finalists import Verification, Verified, choose, nearest, verify
from autopilot.search.ladder import Rung, climb
from autopilot.search.misses import look_closer
from autopilot.search.ranking import Ranking
from autopilot.search.settle import settle
from autopilot.search.timetable import Timetable


@dataclass(frozen=True, slots=True)
class Decision:
    """The winner or else the nearest miss, the ladder below it, and all that was measured to know that."""

    status: Status
    verification: Verification
    winner: Verified | None
    miss: Verified | TrialRecord | None
    comparisons: tuple[Comparison, ...] = ()
    rungs: tuple[Rung, ...] = ()

    @property
    def chosen(self) -> Verified | TrialRecord | None:
        """Whom the result speaks about."""
        return self.winner or self.miss


def decide(
    evaluator: Evaluator,
    records: Sequence[TrialRecord],
    ranking: Ranking,
    *,
    timetable: Timetable,
    ended: str = "",
) -> Decision:
    """Verify the finalists and choose; then, while there is time, the ladder, or near misses where nothing fits.

    ``ended`` says why the search did: where that was before any variant was tried, nothing is known of any. Nor is it
    of a trial, or a finalist's second measurement, that the machine spoilt: it can't be said then that nothing fits.
    """
    verification = verify(evaluator, records, ranking, timetable=timetable)
    winner, comparisons = settle(evaluator, verification.done, ranking, timetable=timetable)
    is_unstable = bool(records) and records[-1].failure is Failure.UNSTABLE
    spoilt = verification.is_spoilt or any(r.failure is Failure.UNSTABLE for r in records)
    is_open = spoilt or is_out_of_time(ended, len(records))
    if winner is None and not is_unstable:
        verification = look_closer(evaluator, records, verification, timetable=timetable)
        winner = choose(verification.all, ranking)
    if winner is not None:
        rungs, verification = climb(evaluator, records, winner, ranking, verification, timetable=timetable)
        return Decision(Status.IN_BUDGET, verification, winner, None, comparisons, rungs)
    miss = nearest(verification.all, records, ranking, failed=verification.failed)
    return Decision(Status.UNDECIDED if is_open else _status(miss), verification, None, miss, comparisons)


def _status(miss: Verified | TrialRecord | None) -> Status:
    """No fit only where everything is certainly out; what may fit but isn't shown to is undecided."""
    is_out = miss is None or miss.verdict is None or miss.verdict.overall is Judgement.OUT
    return Status.NO_FIT if is_out else Status.UNDECIDED
