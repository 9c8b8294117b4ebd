"""What bound the search, and, where nothing fits, the nearest miss and what would admit it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from autopilot.budget import Budget, Judgement, Limit, Verdict
from autopilot.profile import Measurement
from autopilot.result import TrialRecord, TrialState


def explain(
    records: Sequence[TrialRecord],
    budget: Budget,
    *,
    status: str,
    left_out: Mapping[str, str],
    nearest: tuple[Mapping[str, Measurement], Verdict] | None,
) -> str:
    """One paragraph for people; every figure in it comes from the records."""
    parts = [_counts(records), _binding(records, budget)]
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


def _nearest(budget: Budget, measured: Mapping[str, Measurement], verdict: Verdict) -> str:
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
    # The bound that would admit it, with its margin kept.
    factor = 1 - limit.margin if limit.upper else 1 + limit.margin
    needed = unlucky / factor
    shown = f"{needed * 100:.3g}% of baseline" if limit.relative else f"{needed:.4g}"
    value = f"{figures.value * 100:.3g}% of baseline" if limit.relative else f"{figures.value:.4g}"
    word = "misses" if judgement is Judgement.OUT else "can't be told from"
    return f"{word} {limit.axis} {limit.text} at {value}; a limit of {shown} would admit it"
