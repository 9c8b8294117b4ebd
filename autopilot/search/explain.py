"""What bound the search, and, where nothing fits, the nearest miss and what would admit it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from autopilot.budget import Budget, Judgement, Limit, Verdict
from autopilot.profile import Measurement
from autopilot.result import TrialRecord, TrialState

# Their intervals depend on the number of samples alone, not on the machine's noise.
QUALITY_AXES = ("quality", "quality_drop")


def explain(
    records: Sequence[TrialRecord],
    budget: Budget,
    *,
    status: str,
    left_out: Mapping[str, str],
    nearest: tuple[Mapping[str, Measurement], Verdict] | None,
    verified: Sequence[Verdict] = (),
) -> str:
    """One paragraph for people; every figure in it comes from the records.

    ``nearest``: figures and verdict of the nearest miss; ``verified``: verdicts of the finalists' second measurement.
    """
    parts = [_counts(records), _binding(records, budget), _lost(verified)]
    if status != "in_budget" and nearest is not None:
        parts.append(_nearest(budget, *nearest))
    if left_out:
        parts.append("Not tried: " + "; ".join(f"{name} ({reason})" for name, reason in left_out.items()) + ".")
    return " ".join(p for p in parts if p)


def _counts(records: Sequence[TrialRecord]) -> str:
    judged = [r for r in records if r.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    inside = sum(r.verdict is not None and r.verdict.overall is Judgement.IN for r in judged)
    text = f"{len(records)} trials: {inside} in budget, {len(judged) - inside} not"
    duplicates = sum(r.state is TrialState.DUPLICATE for r in records)
    if duplicates:
        text += f", {duplicates} repeated an earlier one"
    failures = Counter(r.failure.value for r in records if r.failure is not None)
    if failures:
        text += ", failed: " + ", ".join(f"{n} {name}" for name, n in failures.most_common())
    return text + "."


def _binding(records: Sequence[TrialRecord], budget: Budget) -> str:
    """How often each limit turned a variant away."""
    out: Counter[str] = Counter()
    for r in records:
        if r.verdict is not None and r.state in (TrialState.COMPLETE, TrialState.PRUNED):
            out.update(axis for axis, j in r.verdict.per_limit.items() if j is Judgement.OUT)
    if not out:
        return "No limit turned a variant away."
    said = []
    for axis, n in out.most_common():
        limit = budget.limit(axis)
        said.append(f"{axis} {limit.text if limit else ''} ({n})")
    return "Limits that turned variants away: " + ", ".join(said) + "."


def _lost(verified: Sequence[Verdict]) -> str:
    """Which limits finalists that looked good did not keep when they were measured again."""
    lost = [v for v in verified if v.overall is not Judgement.IN]
    if not lost:
        return ""
    limits = Counter(axis for v in lost for axis, j in v.per_limit.items() if j is not Judgement.IN)
    said = ", ".join(f"{axis} ({n})" for axis, n in limits.most_common())
    return f"Of {len(verified)} finalists measured again {len(lost)} did not hold: {said}."


def _nearest(budget: Budget, measured: Mapping[str, Measurement], verdict: Verdict) -> str:
    if verdict.overall is Judgement.IN:
        return "The best variant kept every limit when it was screened, but there was no time left to verify it."
    misses = []
    for limit in budget.limits:
        judgement = verdict.per_limit.get(limit.axis)
        if judgement in (None, Judgement.IN):
            continue
        misses.append(_miss(limit, measured.get(limit.axis), judgement))
    return "The nearest miss " + " and ".join(misses) + "." if misses else ""


def _miss(limit: Limit, measured: Measurement | None, judgement: Judgement | None) -> str:
    figures = limit.interval(measured)
    if figures is None:
        reason = measured.reason if measured is not None and measured.reason else "it was not reached"
        return f"has no figure for {limit.axis} ({reason})"
    unlucky = figures.high if limit.upper else figures.low
    if math.isinf(unlucky):
        how = f" ({measured.how})" if measured is not None and measured.how else ""
        return f"is undecided on {limit.axis} {limit.text}: too few requests were timed for a bound{how}"
    # The bound that would admit it, with its margin kept.
    factor = 1 - limit.margin if limit.upper else 1 + limit.margin
    needed = unlucky / factor
    shown = f"{needed * 100:.3g}% of baseline" if limit.relative else f"{needed:.4g}"
    value = f"{figures.value * 100:.3g}% of baseline" if limit.relative else f"{figures.value:.4g}"
    word = "misses" if judgement is Judgement.OUT else "is undecided on"
    text = f"{word} {limit.axis} {limit.text} at {value}; a limit of {shown} would admit it"
    if judgement is Judgement.UNDECIDED and limit.axis in QUALITY_AXES and measured is not None:
        text += f", and more than the {measured.n} samples it was scored on would narrow its interval"
    return text
