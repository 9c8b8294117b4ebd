"""What bound the search, and, where nothing fits, the nearest miss and what would admit it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from autopilot.budget import Budget, Judgement, Limit, Verdict
from autopilot.profile import Measurement
from autopilot.result import Binding, Relaxation, TrialRecord, TrialState
from autopilot.search.outlook import past_baseline
from autopilot.search.relax import needed
from autopilot.words import counted, percent

# Their intervals depend on the number of samples alone, not on the machine's noise.
QUALITY_AXES = ("quality", "quality_drop")
_NO_BETTER = ", which is no better than the baseline"


def explain(
    records: Sequence[TrialRecord],
    budget: Budget,
    *,
    status: str,
    ended: str = "",
    left_out: Mapping[str, str],
    nearest: tuple[Mapping[str, Measurement], Verdict] | None,
    verified: Sequence[Verdict] = (),
    binding: Sequence[Binding] = (),
    relaxations: Sequence[Relaxation] = (),
    baseline: str = "",
    failed: Mapping[int, str] | None = None,
    too_short: str = "",
) -> str:
    """One paragraph for people; every figure in it comes from the records.

    ``nearest``: figures and verdict of the nearest miss; ``verified``: verdicts of the finalists' second measurement;
    ``relaxations``: the ways out where nothing fits; ``baseline``: why it is what it is, where there was a choice;
    ``failed``: why finalists couldn't be measured again, by trial number; ``too_short``: why no variant was tried,
    where the time was too short for any; the rest has nothing to say then.
    """
    if too_short:
        return " ".join(p for p in (baseline, too_short, _left_out(left_out)) if p)
    parts = [baseline, _counts(records), _ended(ended), _binding(records, budget), _lost(verified)]
    parts.append(_failed_again(failed or {}))
    if status != "in_budget" and nearest is not None:
        own = records[0].measured if records else {}
        parts += [_alone(binding), _nearest(budget, *nearest, own, hint=not relaxations), _ways_out(relaxations)]
    parts.append(_left_out(left_out))
    return " ".join(p for p in parts if p)


def _counts(records: Sequence[TrialRecord]) -> str:
    """What became of the trials in the search, the baseline among them; the parts add up to all."""
    judged = [r.verdict for r in records if r.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    inside = sum(v is not None and v.overall is Judgement.IN for v in judged)
    out = sum(v is not None and v.overall is Judgement.OUT for v in judged)
    said = [f"{inside} in budget", f"{out} not"]
    if len(judged) > inside + out:
        said.append(f"{len(judged) - inside - out} undecided")
    duplicates = sum(r.state is TrialState.DUPLICATE for r in records)
    if duplicates:
        said.append(f"{duplicates} repeated an earlier one")
    failures = Counter(r.failure.value for r in records if r.state is TrialState.FAILED and r.failure is not None)
    if failures:
        said.append("failed: " + ", ".join(f"{n} {name}" for name, n in failures.most_common()))
    return f"{counted(len(records), 'trial')}, by the search's own figures: {', '.join(said)}."


def _left_out(reasons: Mapping[str, str]) -> str:
    """What wasn't tried; what has one reason stands together."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    said = [f"{', '.join(group)} ({reason})" for reason, group in names.items()]
    return f"Not tried: {'; '.join(said)}." if said else ""


def _ended(reason: str) -> str:
    return f"The search ended since {reason.removesuffix('.')}." if reason else ""


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


def _alone(binding: Sequence[Binding]) -> str:
    """Which limits are the only thing in the way of a variant, as far as variants were measured to the end."""
    said = [f"{b.axis} alone keeps out {b.sole}" for b in binding if b.sole]
    return f"Measured to the end: {', '.join(said)}." if said else ""


def _ways_out(relaxations: Sequence[Relaxation]) -> str:
    """Which limit, moved alone by how much, admits which variant."""
    said = [r.text for r in relaxations]
    return "Ways out, each by itself: " + "; ".join(said) + "." if len(said) > 1 else f"{said[0]}." if said else ""


def _lost(verified: Sequence[Verdict]) -> str:
    """What finalists came to when they were measured again, and which limits it was; nothing where all held."""
    held = sum(v.overall is Judgement.IN for v in verified)
    broke = [v for v in verified if v.overall is Judgement.OUT]
    open_ = [v for v in verified if v.overall not in (Judgement.OUT, Judgement.IN)]
    said = [f"{held} held"] if held else []
    said += [
        f"{len(group)} {word}: {_axes_of(group)}"
        for group, word in ((broke, "did not hold"), (open_, "stayed undecided"))
        if group
    ]
    noun = "finalist" if len(verified) == 1 else "finalists"
    told = f"Of {len(verified)} {noun} measured again on held-back data, which decides, {' and '.join(said)}."
    return told if broke or open_ else ""


def _failed_again(failed: Mapping[int, str]) -> str:
    """Which finalists failed in their second measurement, and how."""
    said = [f"trial {number} failed when it was measured again ({why.rstrip('.')})" for number, why in failed.items()]
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _axes_of(verdicts: Sequence[Verdict]) -> str:
    """The axes that stood against them, each with how often."""
    axes = Counter(axis for v in verdicts for axis, j in v.per_limit.items() if j is not Judgement.IN)
    return ", ".join(f"{axis} ({n})" for axis, n in axes.most_common())


def _nearest(
    budget: Budget,
    measured: Mapping[str, Measurement],
    verdict: Verdict,
    own: Mapping[str, Measurement],
    *,
    hint: bool,
) -> str:
    """What the nearest miss misses; with ``hint`` also the limit that would admit it.

    ``own``: the baseline's figures.
    """
    if verdict.overall is Judgement.IN:
        return "The best variant kept every limit when it was screened, but there was no time left to verify it."
    misses = []
    for limit in budget.limits:
        judgement = verdict.per_limit.get(limit.axis)
        if judgement in (None, Judgement.IN):
            continue
        misses.append((limit, measured.get(limit.axis), judgement, own.get(limit.axis)))
    said = [_miss(*miss, alone=hint and len(misses) == 1) for miss in misses]
    if said and own and all(measured.get(limit.axis) == own.get(limit.axis) for limit in budget.limits):
        said = [text.removesuffix(_NO_BETTER) for text in said]
        return (
            f"Of what was measured to the end nothing came nearer than the baseline itself, which {' and '.join(said)}."
        )
    return "The nearest miss " + " and ".join(said) + "." if said else ""


def _miss(
    limit: Limit,
    measured: Measurement | None,
    judgement: Judgement | None,
    own: Measurement | None,
    *,
    alone: bool,
) -> str:
    """How a variant misses one limit; ``alone`` where moving that one limit would admit it."""
    figures = limit.interval(measured)
    if figures is None:
        reason = measured.reason if measured is not None and measured.reason else "it was not reached"
        return f"has no figure for {limit.axis} ({reason})"
    unlucky = figures.high if limit.upper else figures.low
    how = f" ({measured.how})" if measured is not None and measured.how else ""
    if math.isinf(figures.value):
        return f"misses {limit.axis} {limit.text}: requests waited without end{how}"
    if math.isinf(unlucky) and judgement is not Judgement.OUT:
        return (
            f"is undecided on {limit.axis} {limit.text}: too few requests were timed for a bound{how}; requests "
            "close together are alike and count as fewer: a larger search.measure_cap times more of them, a quieter "
            "machine makes each tell more, and a lower percentile needs fewer"
        )
    moved = needed(limit, measured)
    value = f"{percent(figures.value)} of baseline" if limit.relative else f"{figures.value:.4g}"
    word = "misses" if judgement is Judgement.OUT else "is undecided on"
    text = f"{word} {limit.axis} {limit.text} at {value}"
    if moved is not None and past_baseline(limit, moved, own):
        text += _NO_BETTER
    elif moved is not None:
        text += f"; a limit of {moved.text[3:]} would admit it" if alone else f", which needs {moved.text}"
    if judgement is Judgement.UNDECIDED and limit.axis in QUALITY_AXES and measured is not None:
        text += f", and more than the {measured.n} samples it was scored on would narrow its interval"
    return text
