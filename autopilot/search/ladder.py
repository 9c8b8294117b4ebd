"""The ladder below the winner: what a service may degrade to under load, rung by rung."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autopilot.budget import Judgement, Verdict
from autopilot.errors import VariantFailed
from autopilot.profile import Interval, Measurement
from autopilot.result import TrialRecord, TrialState
from autopilot.search.evaluator import Evaluator
from autopilot.search.explain import QUALITY_AXES
from autopilot.search.finalists import Verification, Verified, verify_one
from autopilot.search.ranking import Ranking
from autopilot.search.reserve import building_s
from autopilot.search.timetable import Timetable

# Below three steps a service sheds load; each is one more version to register, to keep and to watch.
MOST_RUNGS = 3
# Candidates that fall short when measured again cost as much as those that don't.
MOST_TRIES = 2 * MOST_RUNGS
# A variant that lost half of what the model as given scores answers nothing: on one text model a usual int8
# setting fell from 0.82 to 0.32. An error may grow by half.
MOST_LOST = 0.5

_DROP = Ranking("quality_drop", maximize=False)


@dataclass(frozen=True, slots=True)
class Light:
    """A candidate for a rung: how fast it is and what quality it loses, both the better the smaller."""

    number: int
    speed: Interval
    drop: Interval


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: verified, or as its trial found it."""

    found: Verified | TrialRecord
    reason: str


def next_rung(candidates: Sequence[Light], above: Interval) -> Light | None:
    """The next step down from a variant as fast as ``above``; None where none is certainly faster.

    Of those that are: the least quality lost. What lies inside that one's interval has lost as little as
    can be told, and the fastest of these is taken.
    """
    faster = [c for c in candidates if c.speed.high < above.low]
    if not faster:
        return None
    least = min(faster, key=lambda c: (c.drop.value, c.speed.value, c.number))
    tied = [c for c in faster if c.drop.value <= max(least.drop.value, least.drop.high)]
    return min(tied, key=lambda c: (c.speed.value, c.drop.value, c.number))


def climb(
    evaluator: Evaluator,
    records: Sequence[TrialRecord],
    winner: Verified,
    ranking: Ranking,
    verification: Verification,
    *,
    timetable: Timetable,
) -> tuple[tuple[Rung, ...], Verification]:
    """The ladder from ``winner`` down, each rung measured again while there is time; and all that was measured.

    A rung keeps every limit but those on quality. One that was measured again stands or falls by that alone.
    """
    base = evaluator.reference.measured.get("quality")
    again = {v.record.number: v for v in verification.all}
    pool = {r.number: r for r in records if r.number not in verification.failed and r.id != winner.record.id}
    lights = [x for r in pool.values() if (x := _light(again.get(r.number, r), ranking, base)) is not None]
    rungs, more, failed = list[Rung](), list[Verified](), dict[int, str]()
    above, last = ranking.speed.seen(winner.outcome.measured), f"trial {winner.record.number}"
    while len(rungs) < MOST_RUNGS and (light := next_rung(lights, above)) is not None:
        lights.remove(light)
        found: Verified | TrialRecord = again.get(light.number, pool[light.number])
        if isinstance(found, TrialRecord) and timetable.has_for(found):
            if len(more) + len(failed) >= MOST_TRIES:
                break
            evaluator.observer.phase(f"verifying fallback {len(rungs) + 1} (trial {light.number}) on held-back data")
            try:
                found = verify_one(evaluator, found, timetable)
                more.append(found)
            except VariantFailed as exc:
                failed[light.number] = f"{exc.failure.value}: {exc.message}"
                evaluator.observer.note(f"trial {light.number} failed when measured again: {exc.message}")
                continue
        elif isinstance(found, TrialRecord):
            if (here := _at_hand(evaluator, found, timetable)) is None:
                continue
            found = here
        seen = _light(found, ranking, base)
        if seen is None or not seen.speed.high < above.low:
            continue
        rungs.append(Rung(found, _reason(seen, above, last, ranking)))
        above, last = seen.speed, f"trial {light.number}"
    return tuple(rungs), verification.with_more(more, failed)


def _at_hand(evaluator: Evaluator, record: TrialRecord, timetable: Timetable) -> TrialRecord | None:
    """``record`` with its artifact in place, built again where there is time for that; else None.

    The cache may have let go of it, or another run's machine has it.
    """
    assert record.artifact is not None
    if all(file.exists() for file in record.artifact.files):
        return record
    why = "there is no time to build it again"
    if not record.variant.recipe.steps or timetable.has(building_s(record)):
        try:
            return replace(record, artifact=evaluator.build(record.variant.recipe, {}))
        except VariantFailed as exc:
            why = f"it couldn't be built again: {exc.message}"
    evaluator.observer.note(f"trial {record.number} is no fallback: its model isn't here, and {why}")
    return None


def _light(found: Verified | TrialRecord, ranking: Ranking, base: Measurement | None) -> Light | None:
    """What counts of a variant for the ladder; None where it has no place on it."""
    record = found.record if isinstance(found, Verified) else found
    measured = found.outcome.measured if isinstance(found, Verified) else found.measured
    if record.state not in (TrialState.COMPLETE, TrialState.PRUNED) or record.artifact is None:
        return None
    if found.verdict is None or not _keeps_the_rest(found.verdict):
        return None
    speed, drop = ranking.speed.seen(measured), _DROP.seen(measured)
    if not (math.isfinite(speed.value) and math.isfinite(drop.value)) or _is_useless(drop, base):
        return None
    return Light(record.number, speed, drop)


def _keeps_the_rest(verdict: Verdict) -> bool:
    return all(j is Judgement.IN for axis, j in verdict.per_limit.items() if axis not in QUALITY_AXES)


def _is_useless(drop: Interval, base: Measurement | None) -> bool:
    if base is None or base.value is None or base.value <= 0:
        return False  # a correlation of 0 or less has no half
    return drop.value > MOST_LOST * base.value


def _reason(seen: Light, above: Interval, last: str, ranking: Ranking) -> str:
    """Why a rung is there, in a sentence."""
    speed = ranking.speed
    slow, fast = (seen.speed.value, above.value) if speed.maximize else (above.value, seen.speed.value)
    times = slow / fast if fast else math.inf
    drop = f"{seen.drop.value:.3g} ({seen.drop.low:.3g}..{seen.drop.high:.3g})"
    return f"{times:.3g} times as fast as {last} on {speed.axis}; quality loss {drop}"
