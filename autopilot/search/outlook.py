"""Which limit may give way: judged by what a second measurement should show of variants that have none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autopilot.budget import Budget, Judgement, Limit
from autopilot.profile import Interval, Measurement
from autopilot.result import Relaxation
from autopilot.search.ranking import Ranking
from autopilot.search.relax import Judged, relaxations

# Their intervals follow from the number of samples scored.
_SCORED = ("quality", "quality_drop")


def ways_out(variants: Sequence[Judged], budget: Budget, ranking: Ranking, *, held_back: int) -> tuple[Relaxation, ...]:
    """Limits that would have to give, each alone, for a variant that is better there than the baseline.

    ``variants`` hold the baseline too; ``held_back``: the number of samples that a second measurement scores.
    """
    own = next((v.measured for v in variants if v.record.number == 0), {})
    ways = relaxations(likely(variants, budget, held_back=held_back), budget, ranking)
    return tuple(r for r in ways if not past_baseline(r.limit, r.needed, own.get(r.limit.axis)))


def likely(variants: Sequence[Judged], budget: Budget, *, held_back: int) -> list[Judged]:
    """Variants that one limit's giving way may bring in, with the figures to be expected of a second measurement.

    ``held_back``: the number of samples that it scores. Left out are the baseline, and variants that kept a limit by
    no more than one that broke it, or stayed undecided, when it was measured again.
    """
    others = [v for v in variants if v.record.number != 0]
    again = [v for v in others if v.verified]
    return [
        v if v.verified else on_held_back(v, budget, held_back)
        for v in others
        if v.verified or not any(_shares_fate(v, seen, budget) for seen in again)
    ]


def on_held_back(judged: Judged, budget: Budget, held_back: int) -> Judged:
    """``judged`` with its scores as uncertain as ``held_back`` samples would leave them, and judged by that.

    An interval widens with the square root of the samples that are missing; where nothing was lost, as the samples.
    """
    measured = {
        axis: _widened(m, held_back) if axis in _SCORED and m.value is not None else m
        for axis, m in judged.measured.items()
    }
    return replace(judged, measured=measured, verdict=budget.judge(measured))


def past_baseline(limit: Limit, moved: Limit, baseline: Measurement | None) -> bool:
    """Whether ``limit`` asked for better than the baseline and ``moved`` lets the baseline's own figure in.

    >>> past_baseline(Limit("size_mb", 0.8, relative=True), Limit("size_mb", 1.013, relative=True), None)
    True
    >>> past_baseline(Limit("size_mb", 1.2, relative=True), Limit("size_mb", 1.3, relative=True), None)
    False
    """
    own = 1.0 if limit.relative else baseline.value if baseline is not None else None
    if own is None:
        return False
    if limit.upper:
        return limit.bound < own <= moved.bound
    return moved.bound <= own < limit.bound


def _widened(measured: Measurement, samples: int) -> Measurement:
    assert measured.value is not None
    if samples >= measured.n or measured.low is None or measured.high is None:
        return measured
    times = measured.n / max(samples, 1)
    if measured.value != 0:
        times **= 0.5
    value = measured.value
    low, high = value - times * (value - measured.low), value + times * (measured.high - value)
    ratio = measured.ratio
    if ratio is not None:
        r = ratio.value
        ratio = Interval(r, r - times * (r - ratio.low), r + times * (ratio.high - r))
    return replace(measured, low=low, high=high, n=samples, ratio=ratio)


def _shares_fate(judged: Judged, seen: Judged, budget: Budget) -> bool:
    """Whether a limit that ``seen`` kept in the search alone is one that ``judged`` keeps by no more."""
    first = seen.record.verdict
    if first is None:
        return False
    for limit in budget.limits:
        kept = [v.per_limit.get(limit.axis) is Judgement.IN for v in (first, seen.verdict, judged.verdict)]
        mine = limit.interval(judged.measured.get(limit.axis))
        its = limit.interval(seen.record.measured.get(limit.axis))
        if kept != [True, False, True] or mine is None or its is None:
            continue
        if (mine.high >= its.high) if limit.upper else (mine.low <= its.low):
            return True
    return False
