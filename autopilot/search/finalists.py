"""Verification: the first measurement chose the finalists, so another one has to confirm them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autopilot.budget import Judgement, Verdict
from autopilot.errors import Failure, VariantFailed
from autopilot.result import TrialRecord, TrialState
from autopilot.search.evaluator import Evaluator
from autopilot.search.front import Placed, Point, front
from autopilot.search.outcome import RETRIED, VERIFYING, Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.samples import save_samples, verified_name, waiting_name
from autopilot.search.timetable import Timetable

# Variants whose objective can't be told apart are verified, up to this many: each takes as long as a dozen trials.
MOST_TIED = 3
# With several objectives as many of the front: a table that is still read, in two minutes of small models.
MOST_ON_FRONT = 6
# When finalists fail, the next best follow while there is time; then up to this many in all.
MOST_LATE = 3


@dataclass(frozen=True, slots=True)
class Verified:
    """One finalist, measured again in fresh processes beside the baseline on held-back data."""

    record: TrialRecord
    outcome: Outcome
    verdict: Verdict

    @property
    def holds(self) -> bool:
        """Whether every limit is kept."""
        return self.verdict.overall is Judgement.IN


@dataclass(frozen=True, slots=True)
class Verification:
    """What verifying came to: ``done`` in order, and why others ``failed`` when measured again, by trial number.

    ``more`` were measured again for another reason than to win: near misses where nothing fits, fallbacks.
    """

    done: tuple[Verified, ...] = ()
    failed: Mapping[int, str] = field(default_factory=dict)
    more: tuple[Verified, ...] = ()

    @property
    def all(self) -> tuple[Verified, ...]:
        """Everything that was measured again."""
        return (*self.done, *self.more)

    @property
    def is_spoilt(self) -> bool:
        """Whether the machine was too unsteady for one of them: that says nothing against it."""
        return any(why.startswith(f"{Failure.UNSTABLE.value}:") for why in self.failed.values())

    def with_more(self, more: Sequence[Verified], failed: Mapping[int, str]) -> Verification:
        """The same with further ones."""
        return replace(self, more=(*self.more, *more), failed={**self.failed, **failed})


def line_up(records: Sequence[TrialRecord], ranking: Ranking) -> list[TrialRecord]:
    """Finalists in the order they are verified: in budget by objective, then undecided by violation.

    Last come those that were given up without a limit being broken: they may fit where all others fail.
    """
    measured = [r for r in records if r.state in (TrialState.COMPLETE, TrialState.PRUNED) and r.verdict is not None]
    fitting = [r for r in measured if r.verdict and r.verdict.overall is Judgement.IN]
    fitting.sort(key=lambda r: (ranking.of(r).value, ranking.simplicity(r)))
    open_ = [r for r in measured if r.verdict and r.verdict.overall is Judgement.UNDECIDED]
    open_.sort(key=lambda r: (r.state is TrialState.PRUNED, r.verdict.worst if r.verdict else 0.0, ranking.of(r).value))
    return [*fitting, *open_]


def verify(
    evaluator: Evaluator, records: Sequence[TrialRecord], ranking: Ranking, *, timetable: Timetable
) -> Verification:
    """Measure finalists again until the best is known; the first is always measured.

    Where the next isn't expected to end in time: as soon as one holds, or after a few of which none does, or when
    that would be too late by far.
    """
    done: list[Verified] = []
    failed: dict[int, str] = {}
    waiting = line_up(records, ranking)
    following = next_on_front if ranking.further else next_finalist
    while (record := following(waiting, done, ranking)) is not None:
        enough = any(v.holds for v in done) or len(done) + len(failed) >= MOST_LATE
        if not timetable.has_for(record):
            if enough or ((done or failed) and not timetable.may_be_late_for(record)):
                evaluator.observer.note(f"{timetable.lack(record)}: it is left out")
                break
            evaluator.observer.note(
                f"{timetable.lack(record)}: the study ends late, since no finalist is shown to hold yet"
            )
        waiting.remove(record)
        evaluator.observer.phase(f"verifying finalist {len(done) + 1} (trial {record.number}) on held-back data")
        try:
            done.append(verify_one(evaluator, record, timetable))
        except VariantFailed as exc:
            failed[record.number] = f"{exc.failure.value}: {exc.message}"
            evaluator.observer.note(f"finalist {record.id} failed when measured again: {exc.message}")
    return Verification(tuple(done), failed)


def next_finalist(waiting: Sequence[TrialRecord], done: Sequence[Verified], ranking: Ranking) -> TrialRecord | None:
    """Who is verified next of those ``waiting``, best first: who could still win; None when the best is known.

    While none holds that is the best; then those that tie with the best that does. The last place among
    these is the simplest one's, which wins where all of them tie.
    """
    if not done:
        return waiting[0] if waiting else None
    # Measuring again can't decide a limit that this machine can't measure either.
    able = [r for r in waiting if r.verdict is None or Judgement.NOT_MEASURABLE not in r.verdict.per_limit.values()]
    holding = [v for v in done if v.holds]
    if not holding:
        return able[0] if able else None
    best = min(ranking.seen(v.outcome.measured).high for v in holding)
    tied = [r for r in able if ranking.of(r).low <= best]
    if not tied or len(done) >= MOST_TIED:
        return None
    return min(tied, key=ranking.simplicity) if len(done) == MOST_TIED - 1 else tied[0]


def next_on_front(waiting: Sequence[TrialRecord], done: Sequence[Verified], ranking: Ranking) -> TrialRecord | None:
    """As ``next_finalist`` for several objectives: the ends of the front first, then what lies between.

    Whoever doesn't hold leaves its place on the front to those that it kept off.
    """
    if not any(v.holds for v in done):
        fitting = [r for r in waiting if r.verdict is not None and r.verdict.overall is Judgement.IN]
        ends = _ends(front_of(fitting, (), ranking))
        return _numbered(fitting, ends[0]) if ends else next_finalist(waiting, done, ranking)
    if len(done) >= MOST_ON_FRONT:
        return None
    ends = [number for number in _ends(front_of(waiting, done, ranking)) if any(r.number == number for r in waiting)]
    return _numbered(waiting, ends[0]) if ends else None


def _numbered(records: Sequence[TrialRecord], number: int) -> TrialRecord:
    return next(r for r in records if r.number == number)


def _ends(placed: Sequence[Placed]) -> list[int]:
    """Trial numbers of a front: the best in each objective, then the others in the first objective's order."""
    if not placed:
        return []
    goals = range(len(placed[0].point.figures))
    best = [min(placed, key=lambda m, i=i: m.point.figures[i].value) for i in goals]  # type: ignore[misc]
    return list(dict.fromkeys(m.point.number for m in [*best, *placed]))


def front_of(waiting: Sequence[TrialRecord], done: Sequence[Verified], ranking: Ranking) -> tuple[Placed, ...]:
    """The front of all that keep the budget: the verified ones by their second figures, the others by their first."""
    again = {v.record.number for v in done}
    points = [Point(v.record.number, ranking.all_seen(v.outcome.measured), verified=True) for v in done if v.holds]
    for r in waiting:
        complete = r.state is TrialState.COMPLETE and r.verdict is not None and r.verdict.overall is Judgement.IN
        if complete and r.number not in again:
            points.append(Point(r.number, ranking.all_seen(r.measured)))
    return front(points)


def verify_one(evaluator: Evaluator, record: TrialRecord, timetable: Timetable) -> Verified:
    """``record``'s variant measured again, its readings kept, ``timetable`` told what that took.

    Raises:
        VariantFailed: it can't be run any more.
    """
    built: dict[str, float] = {}
    try:
        artifact = evaluator.build(record.variant.recipe, built)
        outcome = evaluator.measure(record.variant, artifact, VERIFYING)
    except VariantFailed as exc:
        if exc.failure not in RETRIED or (exc.failure is Failure.TIMEOUT and not timetable.has_for(record)):
            raise
        # As in the search: a child that was killed says nothing yet about its variant.
        evaluator.observer.note(f"{exc.failure.value}: {exc.message} Trying once more.")
        artifact = evaluator.build(record.variant.recipe, built)
        outcome = evaluator.measure(record.variant, artifact, VERIFYING)
    spent = [*built.items(), *outcome.seconds.items()]
    timetable.took(record, sum(s for stage, s in spent if not stage.endswith("_saved")))
    verdict = evaluator.verdict(outcome)
    save_samples(evaluator.setup.work, waiting_name(verified_name(record.number)), outcome, verdict)
    return Verified(replace(record, stage="verify"), outcome, verdict)


def choose(done: Sequence[Verified], ranking: Ranking) -> Verified | None:
    """The winner: best objective among those that hold; ties go to the simpler variant.

    With several objectives the first decides, the next among those that tie on it, and so on.
    """
    tied = [v for v in done if v.holds]
    if ranking.further:
        placed = {m.point.number for m in front_of((), tied, ranking)}
        tied = [v for v in tied if v.record.number in placed] or tied
    if not tied:
        return None
    for goal in ranking.goals:
        figures = {v.record.number: goal.seen(v.outcome.measured) for v in tied}
        best = min(figures.values(), key=lambda x: x.value)
        tied = [v for v in tied if figures[v.record.number].low <= best.high]
    return min(tied, key=lambda v: ranking.simplicity(v.record))


def nearest(
    done: Sequence[Verified], records: Sequence[TrialRecord], ranking: Ranking, *, failed: Collection[int] = ()
) -> Verified | TrialRecord | None:
    """The nearest miss where nothing holds.

    What may fit comes first (verified ones, then those there was no time for), then the smallest
    violation. A finalist counts with its second measurement alone; one that ``failed`` then (by trial
    number) counts no more.
    """
    again = {v.record.number for v in done}.union(failed)
    rest = [r for r in records if r.number not in again and r.verdict is not None]
    seen = [r for r in rest if r.state is TrialState.COMPLETE]
    given_up = [r for r in rest if r.state is TrialState.PRUNED]
    maybe = [r for r in given_up if r.verdict and r.verdict.overall is not Judgement.OUT]
    pool: list[Verified | TrialRecord] = [*done, *seen, *maybe] or [*given_up]
    return min(pool, key=lambda found: _distance(found, ranking), default=None)


def _distance(found: Verified | TrialRecord, ranking: Ranking) -> tuple[bool, bool, float, float, int]:
    """How far from the budget: smaller is nearer."""
    record, verdict = (found.record, found.verdict) if isinstance(found, Verified) else (found, found.verdict)
    measured = found.outcome.measured if isinstance(found, Verified) else found.measured
    is_out = verdict is None or verdict.overall is Judgement.OUT
    unconfirmed = not is_out and not isinstance(found, Verified)
    worst = verdict.worst if verdict is not None else math.inf
    return is_out, unconfirmed, worst, ranking.seen(measured).value, record.number


def pareto(records: Sequence[TrialRecord], ranking: Ranking) -> tuple[str, ...]:
    """Ids of the complete trials that no other beats in both objective and quality."""
    drop = Ranking("quality_drop", maximize=False)
    complete = [r for r in records if r.state is TrialState.COMPLETE]
    ids = {r.number: r.id for r in complete}
    placed = front([Point(r.number, (ranking.of(r), drop.of(r))) for r in complete])
    return tuple(ids[m.point.number] for m in placed)
