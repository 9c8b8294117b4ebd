"""Is a variant what it claims to be: what the audit found, and what the spec's policy makes of it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from autopilot.bench.child import ChildLimits
from autopilot.data import Split
from autopilot.errors import AutopilotError, Failure, VariantFailed
from autopilot.observer import Observer
from autopilot.profile import Int8Audit, Profile
from autopilot.search.costs import time_operators
from autopilot.search.outcome import Outcome
from autopilot.spec import Problem

_HINT = "`audit: warn` in the spec makes this a warning."


def provider_fallback(profile: Profile) -> str | None:
    """Which share of the nodes (and, where it is known, of the time) isn't on the provider asked for; None if none."""
    wanted = profile.environment.get("execution_provider")
    nodes = profile.placement.working if profile.placement is not None else {}
    elsewhere = {name: count for name, count in sorted(nodes.items()) if count and name != wanted}
    if wanted is None or not elsewhere:
        return None
    total = sum(nodes.values())
    spent = profile.operators.by_provider() if profile.operators is not None else {}
    parts = []
    for name, count in elsewhere.items():
        time = f", {spent.get(name, 0.0):.1%} of the time" if spent else ""
        parts.append(f"{count} of {total} nodes ({count / total:.1%}{time}) run on {name}")
    return f"{' and '.join(parts)}, not on {wanted} as asked."


def fallen(outcome: Outcome, split: Split, limits: ChildLimits, observer: Observer) -> str | None:
    """As ``provider_fallback`` for a variant that was loaded; operators are timed where that is to tell shares of time.

    Where they can't be timed the share of nodes has to do.
    """
    assert outcome.profile is not None
    if provider_fallback(outcome.profile) is not None and outcome.profile.operators is None:
        with contextlib.suppress(AutopilotError):
            outcome.profile = replace(outcome.profile, operators=time_operators(outcome, split, limits, observer))
    return provider_fallback(outcome.profile)


def fake_int8(audit: Int8Audit | None, provider: str) -> str | None:
    """How many nodes run in int8 of those that claim it, where most don't; None for what keeps its promise."""
    if audit is None or not audit.is_fake:
        return None
    return f"only {audit.executed} of {audit.claimed} nodes that should be int8 run in int8 on {provider}."


def hold(problem: Problem, outcome: Outcome, failure: Failure, found: str | None, *, is_baseline: bool) -> None:
    """Fail the variant for what the audit ``found``, or warn, as the spec's ``audit`` says.

    The baseline is warned about only: it is what everything is compared with. As a finalist it is
    held to the same as every other variant.

    Raises:
        VariantFailed: under the policy ``fail``.
    """
    if found is None:
        return
    if problem.audit == "fail" and not is_baseline:
        raise VariantFailed(failure, found, _HINT)
    warning = f"{failure.value}: {found}"
    if warning not in outcome.warnings:
        outcome.warnings.append(warning)
