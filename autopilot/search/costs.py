"""Where a variant's time goes: its stages, and its operators from a pass of their own."""

from __future__ import annotations

from dataclasses import replace

from autopilot.bench.child import ChildLimits
from autopilot.bench.operators import measure_operators
from autopilot.data import Split
from autopilot.errors import AutopilotError
from autopilot.observer import Observer
from autopilot.profile import OperatorTable, Profile, StageShares
from autopilot.search.outcome import Outcome
from autopilot.search.summary import environment
from autopilot.stats import stage_shares

# The pass itself takes some seconds at most; the rest is for starting and loading.
_SLACK_S = 60.0


def take_costs(outcome: Outcome, split: Split, limits: ChildLimits, observer: Observer) -> None:
    """Put stages and operators into ``outcome.profile``; what can't be had is a note and a warning, never an error."""
    profile = outcome.profile or Profile(outcome.variant.id, environment=environment(outcome.variant.deployment))
    if profile.stages is None and profile.latency is not None:
        profile = replace(profile, stages=stage_shares(profile.latency))
    latency_s = _inference_s(outcome, profile.stages, split)
    if profile.operators is not None and profile.operators.latency_s is None:  # timed before the latency was known
        profile = replace(profile, operators=replace(profile.operators, latency_s=latency_s))
    elif profile.operators is None:
        try:
            table = time_operators(outcome, split, limits, observer, latency_s=latency_s)
            profile = replace(profile, operators=table)
        except AutopilotError as exc:
            reason = f"operators of {outcome.variant.id} were not timed: {exc.message}"
            observer.note(reason)
            outcome.warnings.append(reason)
    outcome.profile = profile


def time_operators(
    outcome: Outcome, split: Split, limits: ChildLimits, observer: Observer, *, latency_s: float | None = None
) -> OperatorTable:
    """The variant's operators from a process of its own; ``latency_s`` as in ``OperatorTable``.

    Raises:
        AutopilotError: the provider has no profiler, or the variant doesn't run.
    """
    observer.doing("timing operators")
    return measure_operators(
        outcome.artifact.path,
        outcome.variant.deployment,
        split=split,
        limits=replace(limits, wall_s=min(limits.wall_s, _SLACK_S)),
        latency_s=latency_s,
    )


def _inference_s(outcome: Outcome, stages: StageShares | None, split: Split) -> float | None:
    """Mean seconds of the model alone in one request without the profiler; None where it isn't told from the hooks."""
    if stages is not None:
        return stages.inference.seconds
    mean = outcome.measured.get("latency_mean_ms")
    if mean is None or mean.value is None or split.preprocess is not None or split.postprocess is not None:
        return None
    return mean.value / 1e3
