"""What is certain before anything is tried: limits that can't be shown here, an audit that variants will fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autopilot.budget import Budget, Limit
from autopilot.contracts import Metric
from autopilot.errors import Failure
from autopilot.profile import Measurement
from autopilot.scoring import least_drop, samples_for
from autopilot.search.evaluator import Evaluator
from autopilot.spec import DataSpec

# Axes whose lack follows from the machine, not from how a variant is built or where it runs.
_OF_THE_MACHINE = frozenset({"energy_mj", "peak_memory_mb", "model_memory_mb", "resident_memory_mb"})
_AUDITED = (Failure.PROVIDER_FALLBACK, Failure.FAKE_INT8)


def foreseen(evaluator: Evaluator) -> list[str]:
    """Sentences on what had better be known before a search (or check) takes its time; the baseline is measured."""
    setup, given = evaluator.setup, evaluator.reference
    problem, found = setup.problem, []
    if problem.audit == "fail":
        warned = [*given.warnings, *evaluator.baseline.warnings]
        found += audit_notes(list(dict.fromkeys(warned)))
    found += unmeasurable_notes(problem.budget, given.measured, providers=len(setup.space.providers))
    return found + sample_notes(problem.budget, setup.metric, setup.splits.test.n, problem.data)


def audit_notes(warnings: Sequence[str]) -> list[str]:
    """What the audit found in the model as given, and what comes of it under ``audit: fail``."""
    return [
        f"the model as given: {warning} A variant of which that is true fails, and so does the model as given when it "
        "is measured again: allow another provider (target.providers), or let it pass with `audit: warn`"
        for warning in warnings
        if warning.startswith(tuple(f"{failure.value}:" for failure in _AUDITED))
    ]


def unmeasurable_notes(budget: Budget, measured: Mapping[str, Measurement], *, providers: int) -> list[str]:
    """Limits on axes that the model as given, which was ``measured``, has no figure for."""
    notes = []
    for limit in budget.limits:
        found = measured.get(limit.axis)
        if found is None or found.value is not None:
            continue
        reason = (found.reason or "it was not measured").rstrip(".")
        whose = "no variant can" if limit.axis in _OF_THE_MACHINE or providers == 1 else "a variant like that can't"
        notes.append(
            f"{limit.axis} {limit.text}: there is no figure here for the model as given ({reason}); {whose} be shown "
            "to keep the limit, so that the end is undecided (exit code 4) at best: remove the limit, or run where it "
            "can be measured"
        )
    return notes


def sample_notes(budget: Budget, metric: Metric, n: int, data: DataSpec) -> list[str]:
    """Limits on the loss that ``n`` held-back samples can't show to be kept, and how many could."""
    limit = budget.limit("quality_drop")
    least = least_drop(metric, n)
    if limit is None or limit.relative or limit.effective >= least:
        return []
    margin = f" with its margin of {limit.margin:.2g}" if limit.margin else ""
    text = (
        f"quality_drop {limit.text}{margin} can't be shown on {n} held-back samples: where not one decision changes, "
        f"a loss of {least:.3g} can't be ruled out yet, so that only a variant with the same outputs to the last bit, "
        "or a better one, can keep it"
    )
    return [f"{text}; {_enough(limit, metric, least, data)}"]


def _enough(limit: Limit, metric: Metric, least: float, data: DataSpec) -> str:
    """What would do: more samples, or a wider limit."""
    wider = math.ceil(1e4 * least / (1 - limit.margin)) / 1e4
    if not 0 < limit.effective < 1:
        return f"a limit of {wider:g} can be shown"
    needed = samples_for(metric, limit.effective)
    where = "data.test" if data.test is not None else f"a data.test, or {3 * needed} samples in data.validation"
    return f"it takes at least {needed} held-back ones ({where}), or a limit of {wider:g}"
