"""The cold pass of a variant: how many fresh processes, what they are compared with, what is known after."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import ColdReading, Server, measure_cold, measure_empty
from autopilot.contracts import Stage
from autopilot.meters.memory import MIN_STARTS, MODEL, PEAK
from autopilot.profile import Measurement, Profile
from autopilot.recipe import Deployment
from autopilot.search.energy import unread_reason
from autopilot.search.outcome import Outcome
from autopilot.search.prepare import Setup
from autopilot.search.summary import environment, summarise
from autopilot.spec import Problem

Ready = Callable[[Server], None]

# The fewest starts whose spread gives an interval of start time worth having.
COLD_STARTS = 5
# A memory limit this near to the first start's figure, as a share of it, is judged on the spread of several starts.
NEAR = 0.1


def first_starts(problem: Problem) -> int:
    """Several processes where start time is judged, since one has no interval."""
    return COLD_STARTS if "load_s" in (*problem.budget.axes, *problem.objectives) else 1


def more_starts(problem: Problem, measured: Mapping[str, Measurement], done: int) -> int:
    """How many processes to start beside the ``done`` ones that memory was read of: some where its limit is near."""
    for axis in (PEAK.name, MODEL.name):
        limit = problem.budget.limit(axis)
        figures = None if limit is None else limit.interval(measured.get(axis))
        if limit is not None and figures is not None and abs(limit.effective - figures.value) <= NEAR * figures.value:
            return max(0, MIN_STARTS - done)
    return 0


class ColdPass:
    """Starts, loads, asks and ends fresh processes; the ones with no model only once a deployment's shape.

    ``ready``: what has a variant's server answer all that it will be asked under the spec's traffic, before its memory
    is read; None for a variant where that is nothing more, or nobody asks.
    """

    def __init__(self, setup: Setup, ready: Callable[[Outcome], Ready | None] = lambda outcome: None) -> None:
        self._setup = setup
        self._ready = ready
        self._empty_bytes: dict[tuple[str, int, int], int | None] = {}

    def run(
        self, outcome: Outcome, *, limits: ChildLimits, baseline: Mapping[str, Measurement] | None
    ) -> tuple[Profile, tuple[str, ...]]:
        """Everything known of the variant after its cold starts, and warnings.

        ``baseline``: the baseline's measurements, for limits relative to it; None for the baseline itself.

        Raises:
            VariantFailed: it doesn't load or answer.
        """
        problem = self._setup.problem
        empty_bytes = self._empty(outcome.variant.deployment, limits)
        cold = self._start(outcome, limits, first_starts(problem))
        profile = self._profile(outcome, cold, empty_bytes)
        more = more_starts(problem, summarise(problem, profile, Stage.SMOKE, baseline), len(cold.starts_bytes))
        for _ in range(more):  # each by itself, so that each is made ready: their spread is that of serving processes
            cold = cold.with_more(self._start(outcome, limits, 1))
        if more:
            profile = self._profile(outcome, cold, empty_bytes)
        return profile, cold.warnings

    def _start(self, outcome: Outcome, limits: ChildLimits, repeats: int) -> ColdReading:
        split = self._setup.splits.validation
        deployment = outcome.variant.deployment
        path = outcome.artifact.path
        return measure_cold(path, deployment, split=split, limits=limits, repeats=repeats, ready=self._ready(outcome))

    def _empty(self, deployment: Deployment, limits: ChildLimits) -> int | None:
        """Peak memory of the process with no model; what it holds follows threads and batch."""
        key = (deployment.provider, deployment.threads, deployment.batch)
        if key not in self._empty_bytes:
            self._empty_bytes[key] = measure_empty(deployment, limits, split=self._setup.splits.validation)
        return self._empty_bytes[key]

    def _profile(self, outcome: Outcome, cold: ColdReading, empty_bytes: int | None) -> Profile:
        return Profile(
            outcome.variant.id,
            size_bytes=outcome.artifact.size_bytes,
            load_s=cold.load_s,
            peak_memory_bytes=cold.peak_memory_bytes,
            peak_memory_starts_bytes=cold.starts_bytes,
            resident_memory_bytes=cold.resident_memory_bytes,
            empty_memory_bytes=empty_bytes,
            gpu_memory_bytes=cold.gpu_memory_bytes,
            gpu_memory_reason=cold.gpu_memory_reason,
            placement=cold.placement,
            price_per_hour=self._setup.problem.target.price_per_hour,
            energy_reason=unread_reason(self._setup.target),
            environment=environment(outcome.variant.deployment),
        )
