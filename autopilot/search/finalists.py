"""Verification: the first measurement chose the finalists, so another one has to confirm them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autopilot.budget import Judgement, Verdict
from autopilot.errors import VariantFailed
from autopilot.profile import Interval, Measurement
from autopilot.result import TrialRecord, TrialState
from autopilot.search.evaluator import Evaluator
from autopilot.search.outcome import RETRIED, VERIFYING, Outcome
from autopilot.search.samples import save_samples, verified_name

# Variants whose objective can't be told apart are all verified, up to this many.
MOST_TIED = 3
# When finalists fail, the next best follow while there is time; then up to this many in all.
MOST_LATE = 3


@dataclass(frozen=True, slots=True)
class Verified:
    """One finalist, measured again in fresh processes beside the baseline on held-back data."""

    record: TrialRecord
    outcome: Outcome
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Verification:
    """What verifying came to: ``done`` in order, and why others ``failed`` when measured again, by trial number."""

    done: tuple[Verified, ...] = ()
    failed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ranking:
    """How variants compare on the objective."""

    axis: str
    maximize: bool

    def figures(self, measured: Measurement | None) -> Interval:
        """Value and interval, as a ratio to the baseline where there is one; smaller is better."""
        if measured is None or measured.value is None:
            return Interval(math.inf, math.inf, math.inf)
        low = measured.value if measured.low is None else measured.low
        high = measured.value if measured.high is None else measured.high
        found = measured.ratio or Interval(measured.value, low, high)
        return Interval(-found.value, -found.high, -found.low) if self.maximize else found

    def of(self, record: TrialRecord) -> Interval:
        return self.figures(record.measured.get(self.axis))

    def simplicity(self, record: TrialRecord) -> tuple[int, int, int]:
        """Fewer techniques, then a smaller artifact, then the earlier trial."""
        size = record.artifact.size_bytes if record.artifact else 0
        return len(record.variant.recipe.steps), size, record.number


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
    evaluator: Evaluator,
    records: Sequence[TrialRecord],
    ranking: Ranking,
    *,
    out_of_time: Callable[[], bool],
) -> Verification:
    """Measure finalists again until the best is known; the first is always measured.

    When time is up, as soon as one holds, or after a few of which none does.
    """
    done: list[Verified] = []
    failed: dict[int, str] = {}
    for record in line_up(records, ranking):
        if done and not _worth_verifying(record, done, ranking):
            break
        enough = any(v.verdict.overall is Judgement.IN for v in done) or len(done) + len(failed) >= MOST_LATE
        if enough and out_of_time():
            break
        evaluator.observer.phase(f"verifying finalist {len(done) + 1} (trial {record.number}) on held-back data")
        try:
            done.append(_verify_one(evaluator, record))
        except VariantFailed as exc:
            failed[record.number] = f"{exc.failure.value}: {exc.message}"
            evaluator.observer.note(f"finalist {record.id} failed when measured again: {exc.message}")
    return Verification(tuple(done), failed)


def _worth_verifying(record: TrialRecord, done: list[Verified], ranking: Ranking) -> bool:
    """Whether a further finalist could still win: none holds yet, or it ties with the best that does."""
    if record.verdict is not None and Judgement.NOT_MEASURABLE in record.verdict.per_limit.values():
        return False  # measuring again can't decide it either
    holding = [v for v in done if v.verdict.overall is Judgement.IN]
    if not holding:
        return True
    if len(done) >= MOST_TIED:
        return False
    best = min(ranking.figures(v.outcome.measured.get(ranking.axis)).high for v in holding)
    return ranking.of(record).low <= best


def _verify_one(evaluator: Evaluator, record: TrialRecord) -> Verified:
    try:
        artifact = evaluator.build(record.variant.recipe, {})
        outcome = evaluator.measure(record.variant, artifact, VERIFYING)
    except VariantFailed as exc:
        if exc.failure not in RETRIED:
            raise
        # As in the search: a child that was killed says nothing yet about its variant.
        evaluator.observer.note(f"{exc.failure.value}: {exc.message} Trying once more.")
        artifact = evaluator.build(record.variant.recipe, {})
        outcome = evaluator.measure(record.variant, artifact, VERIFYING)
    verdict = evaluator.verdict(outcome)
    save_samples(evaluator.setup.work, verified_name(record.number), outcome, verdict)
    return Verified(replace(record, stage="verify"), outcome, verdict)


def choose(done: Sequence[Verified], ranking: Ranking) -> Verified | None:
    """The winner: best objective among those that hold; ties go to the simpler variant."""
    holding = [v for v in done if v.verdict.overall is Judgement.IN]
    if not holding:
        return None
    figures = {id(v): ranking.figures(v.outcome.measured.get(ranking.axis)) for v in holding}
    best = min(holding, key=lambda v: figures[id(v)].value)
    tied = [v for v in holding if figures[id(v)].low <= figures[id(best)].high]
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
    return is_out, unconfirmed, worst, ranking.figures(measured.get(ranking.axis)).value, record.number


def pareto(records: Sequence[TrialRecord], ranking: Ranking) -> tuple[str, ...]:
    """Ids of the complete trials that no other beats in both objective and quality."""
    points = []
    for r in records:
        quality = r.measured.get("quality_drop")
        if r.state is TrialState.COMPLETE and quality is not None and quality.value is not None:
            points.append((ranking.of(r).value, quality.value, r.id))
    points.sort()
    front: list[str] = []
    best = math.inf
    for _, drop, name in points:
        if drop < best:
            front.append(name)
            best = drop
    return tuple(front)
