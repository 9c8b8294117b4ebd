"""Where nothing fits: which limits bind, and which one of them would have to give, and by how much. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autopilot.budget import Budget, Judgement, Limit, Verdict
from autopilot.profile import Measurement
from autopilot.result import Binding, Relaxation, TrialRecord, TrialState
from autopilot.search.ranking import Ranking

# A reader chooses between a handful of ways out; more hide the best.
MOST_RELAXATIONS = 5
# Each near miss that is measured again takes as long as a finalist, and each limit has one that counts.
MOST_MISSES = 3
# A bound of four digits is nearer to what was measured than any interval, and can be typed.
_DIGITS = 4
# Axes where a bound of 0 or less has a meaning; elsewhere the spec refuses it.
_ANY_SIGN = ("quality", "quality_drop")


@dataclass(frozen=True, slots=True)
class Judged:
    """A variant with all its figures: ``measured`` and ``verdict`` of its second measurement where ``verified``."""

    record: TrialRecord
    measured: Mapping[str, Measurement]
    verdict: Verdict
    verified: bool = False


def needed(limit: Limit, measured: Measurement | None) -> Limit | None:
    """``limit`` moved just so far that ``measured`` keeps it with its margin; rounded to four digits, outwards.

    None where no bound does: there is no figure, or none on the interval's unlucky side.

    >>> needed(Limit("size_mb", 1.0, margin=0.05), Measurement.exact("size_mb", 1.9, "file size")).text
    '<= 2'
    """
    figures = limit.interval(measured)
    if figures is None:
        return None
    unlucky = figures.high if limit.upper else figures.low
    if not math.isfinite(unlucky):
        return None
    grows = (unlucky >= 0) == limit.upper  # what the margin takes off has to be added, in whatever sign
    bound = _outwards(unlucky / (1 - limit.margin if grows else 1 + limit.margin), up=limit.upper)
    moved = replace(limit, bound=bound)
    while moved.judge(measured) is not Judgement.IN:  # the last bit of a division
        moved = replace(limit, bound=_next(moved.bound, up=limit.upper))
    return moved if moved.bound > 0 or (limit.axis in _ANY_SIGN and not limit.relative) else None


def _outwards(value: float, *, up: bool) -> float:
    """``value`` rounded to a few digits, never towards the stricter side."""
    nearest = float(f"{value:.{_DIGITS}g}")
    return nearest if ((nearest >= value) if up else (nearest <= value)) else _next(value, up=up)


def _next(value: float, *, up: bool) -> float:
    """``value`` moved by one in its last digit, or by the least there is."""
    end = math.inf if up else -math.inf
    digit = 10.0 ** (math.floor(math.log10(abs(value))) - _DIGITS + 1) if value else 0.0
    return (
        max(float(f"{value + digit:.{_DIGITS}g}"), math.nextafter(value, end))
        if up
        else min(float(f"{value - digit:.{_DIGITS}g}"), math.nextafter(value, end))
    )


def relaxation(judged: Judged, budget: Budget, ranking: Ranking) -> Relaxation | None:
    """The one limit whose relaxing admits a variant; None where it takes more than one, or none does."""
    missed = [limit for limit in budget.limits if judged.verdict.per_limit.get(limit.axis) is not Judgement.IN]
    if len(missed) != 1:
        return None
    limit = missed[0]
    moved = needed(limit, judged.measured.get(limit.axis))
    if moved is None:
        return None
    record = judged.record
    objective = {axis: judged.measured[axis] for axis in ranking.axes if axis in judged.measured}
    return Relaxation(limit, moved, record.id, record.number, objective, judged.verified)


def relaxations(variants: Iterable[Judged], budget: Budget, ranking: Ranking) -> tuple[Relaxation, ...]:
    """The ways out, the smallest step first; of several on one axis only those that give more for more."""
    found = [(r, v) for v in variants if (r := relaxation(v, budget, ranking)) is not None]
    found.sort(key=lambda pair: (pair[0].by, ranking.seen(pair[1].measured).value, pair[0].number))
    best: dict[str, tuple[float, ...]] = {}
    kept: list[Relaxation] = []
    for step, variant in found:
        gives = tuple(figures.value for figures in ranking.all_seen(variant.measured))
        before = best.get(step.limit.axis)
        if before is None or any(new < old for new, old in zip(gives, before, strict=True)):
            best[step.limit.axis] = gives if before is None else tuple(map(min, gives, before))
            kept.append(step)
    return tuple(kept[:MOST_RELAXATIONS])


def binding(verdicts: Iterable[Verdict], budget: Budget) -> tuple[Binding, ...]:
    """How many variants each limit turned away, the one that turned most away first."""
    told = [v.per_limit for v in verdicts]
    found = []
    for axis in budget.axes:
        out = [limits for limits in told if limits.get(axis) is Judgement.OUT]
        rest = [[j for name, j in limits.items() if name != axis] for limits in out]
        sole = sum(all(j is Judgement.IN for j in others) for others in rest)
        unknown = sum(Judgement.OUT not in others for others in rest) - sole
        if out:
            found.append(Binding(axis, len(out), sole, unknown))
    return tuple(sorted(found, key=lambda b: -b.out))


def near_misses(records: Sequence[TrialRecord], *, known: Collection[int]) -> list[TrialRecord]:
    """Whom to measure to the end where nothing fits: trials that break one limit as far as was seen.

    A trial ends at its first certain violation, so that whether anything else stands in the way isn't known.
    For each limit the nearest comes first; then the second nearest, and so on. ``known``: trials (by number)
    that were measured again already; the baseline is another that needs no second look.
    """
    by_axis: dict[str, list[TrialRecord]] = {}
    for r in records:
        if r.verdict is None or r.artifact is None or r.number in known or r.number == 0:
            continue
        broken = [axis for axis, j in r.verdict.per_limit.items() if j is Judgement.OUT]
        if len(broken) == 1 and r.state in (TrialState.COMPLETE, TrialState.PRUNED):
            by_axis.setdefault(broken[0], []).append(r)
    queues = [sorted(found, key=_violation) for found in by_axis.values()]
    queues.sort(key=lambda found: _violation(found[0]))
    ordered = [found[i] for i in range(MOST_MISSES) for found in queues if i < len(found)]
    return ordered[:MOST_MISSES]


def _violation(record: TrialRecord) -> tuple[float, int]:
    return (record.verdict.worst if record.verdict is not None else math.inf), record.number
