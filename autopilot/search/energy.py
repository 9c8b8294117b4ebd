"""Whether a variant's energy is read, and reading it in a serving process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from autopilot.bench.energy import SERVED_S, measure_energy, open_counter
from autopilot.bench.launcher import Server
from autopilot.budget import Budget, Judgement
from autopilot.counters import RAPL
from autopilot.errors import NotMeasurable
from autopilot.meters.energy import ENERGY, METER
from autopilot.profile import EnergyReading, Measurement, Profile
from autopilot.search.decider import stretched
from autopilot.search.outcome import VERIFYING, Effort
from autopilot.search.summary import with_ratio
from autopilot.spec import Problem
from autopilot.target import Target

# Start and warm-up, then as much idle as busy time: 1 s of each for RAPL's updates, SERVED_S of each for NVML's.
RAPL_PASS_S = 4.0
NVML_PASS_S = 4.0 + 2 * SERVED_S
# A z of 2.94 at every look (Pocock 1977): for a dozen looks a wrong stop in less than 2.5% of the cases.
_STRETCH = 1.5
NOT_ASKED = "read for the finalists only: neither budget nor objective names energy_mj"


def is_wanted(problem: Problem, target: Target, effort: Effort) -> bool:
    """Whether to spend the seconds: where there is a counter, for finalists, and for all where the spec asks."""
    if target.energy_source is None:
        return False
    return effort is VERIFYING or ENERGY.name in (*problem.budget.axes, *problem.objectives)


def unread_reason(target: Target) -> str:
    """Why a variant has no energy before (or without) the pass."""
    return target.energy_reason if target.energy_source is None else NOT_ASKED


def expected_s(target: Target) -> float:
    """About how long the pass of one finalist takes on this machine, in seconds; 0 without a counter."""
    if target.energy_source is None:
        return 0.0
    return RAPL_PASS_S if target.energy_source == RAPL else NVML_PASS_S


def with_energy(
    profile: Profile, start: Callable[[], Server], budget: Budget, baseline: Mapping[str, Measurement] | None
) -> Profile:
    """``profile`` with the energy of the server that ``start`` starts, or with the reason why there is none.

    ``baseline``: the baseline's measurements, for a limit relative to it; None for the baseline itself.

    Raises:
        VariantFailed: it doesn't load or answer.
    """
    assert profile.placement is not None  # the cold pass came before
    limit = budget.limit(ENERGY.name)

    def decided(reading: EnergyReading) -> bool:
        figures = stretched(METER.summarise(replace(profile, energy=reading), ENERGY.name), _STRETCH)
        return limit is None or limit.judge(with_ratio(figures, baseline)) is not Judgement.UNDECIDED

    with start() as server:
        try:
            counter = open_counter(server.pid, profile.placement)
            server.warm_up()
            return replace(profile, energy=measure_energy(server, counter, decided=decided), energy_reason="")
        except NotMeasurable as exc:
            return replace(profile, energy_reason=exc.message)
