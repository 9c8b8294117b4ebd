"""Finalists that tie beside the baseline, read against each other: the simpler one wins only a real tie."""

from __future__ import annotations

from collections.abc import Sequence

from autopilot.bench.compare import Standing
from autopilot.errors import VariantFailed
from autopilot.result import Comparison
from autopilot.search.evaluator import Evaluator
from autopilot.search.finalists import MOST_TIED, Verified, choose
from autopilot.search.outcome import PERCENTILE
from autopilot.search.ranking import Ranking
from autopilot.search.timetable import Timetable
from autopilot.spec import Problem

# A dozen pairs of fresh processes of a small model: that tells 1% apart.
CAP_S = 12.0
# Nearer than that it couldn't tell which is faster, and it hardly matters.
WORTH = 0.01


def settle(
    evaluator: Evaluator, done: Sequence[Verified], ranking: Ranking, *, timetable: Timetable
) -> tuple[Verified | None, tuple[Comparison, ...]]:
    """The winner, and the direct comparisons that it took.

    Each finalist was read beside the baseline, so that their ratios to it can be compared; but two such ratios
    are known less well than one of the two themselves. Where the fastest and the simplest overlap they are
    read against each other: the simplest wins unless the fastest is certainly faster.
    """
    winner = choose(done, ranking)
    if not can_compare(evaluator.setup.problem, ranking):
        return winner, ()
    q = percentile(ranking.axis)
    left, found = [v for v in done if v.holds], list[Comparison]()
    while winner is not None and len(found) < MOST_TIED - 1:
        fastest = min(left, key=lambda v: ranking.seen(v.outcome.measured).value)
        first, second = (ranking.seen(v.outcome.measured).value for v in (fastest, winner))
        if second - first <= WORTH * abs(first) or not timetable.has(CAP_S):
            break
        numbers = (fastest.record.number, winner.record.number)
        evaluator.observer.phase(f"comparing trials {numbers[0]} and {numbers[1]}, which tie, with each other")
        try:
            seen = evaluator.compare(fastest.outcome, winner.outcome, q=q, cap_s=CAP_S)
        except VariantFailed as exc:
            evaluator.observer.note(f"trials {numbers[0]} and {numbers[1]} were not compared: {exc.message}")
            break
        found.append(Comparison(*numbers, seen.ratio, seen.verdict.value, seen.rounds, seen.requests))
        if seen.verdict is not Standing.FASTER:
            break
        left = [v for v in left if v is not winner]
        winner = choose(left, ranking)
    return winner, tuple(found)


def can_compare(problem: Problem, ranking: Ranking) -> bool:
    """Requests of scheduled traffic, and what isn't a latency, have no direct comparison."""
    return not problem.traffic.is_server and not ranking.further and ranking.axis.startswith("latency_")


def percentile(axis: str) -> float | None:
    """The percentile that a latency axis is of; None for the mean."""
    found = PERCENTILE.fullmatch(axis)
    return float(found["q"]) if found else None
