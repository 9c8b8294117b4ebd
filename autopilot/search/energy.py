"""Whether a variant's energy is read, and reading it in a serving process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autopilot.bench.energy import measure_energy, open_counter
from autopilot.bench.launcher import Server
from autopilot.errors import NotMeasurable
from autopilot.meters.energy import ENERGY
from autopilot.profile import Profile
from autopilot.search.outcome import VERIFYING, Effort
from autopilot.spec import Problem
from autopilot.target import Target

NOT_ASKED = "read for the finalists only: neither budget nor objective names energy_mj"


def is_wanted(problem: Problem, target: Target, effort: Effort) -> bool:
    """Whether to spend the seconds: where there is a counter, for finalists, and for all where the spec asks."""
    if target.energy_source is None:
        return False
    return effort is VERIFYING or ENERGY.name in (*problem.budget.axes, problem.objective)


def unread_reason(target: Target) -> str:
    """Why a variant has no energy before (or without) the pass."""
    return target.energy_reason if target.energy_source is None else NOT_ASKED


def with_energy(profile: Profile, start: Callable[[], Server]) -> Profile:
    """``profile`` with the energy of the server that ``start`` starts, or with the reason why there is none.

    Raises:
        VariantFailed: it doesn't load or answer.
    """
    assert profile.placement is not None  # the cold pass came before
    with start() as server:
        try:
            counter = open_counter(server.pid, profile.placement)
            server.warm_up()
            return replace(profile, energy=measure_energy(server, counter), energy_reason="")
        except NotMeasurable as exc:
            return replace(profile, energy_reason=exc.message)
