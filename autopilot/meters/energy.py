"""energy_mj: millijoules a sample, from a hardware counter with idle power subtracted; never an estimate."""

from __future__ import annotations

from autopilot.contracts import Axis, Stage
from autopilot.profile import Measurement, Profile

ENERGY = Axis("energy_mj", False, Stage.LATENCY, "energy a sample above idle, in millijoules")


class EnergyMeter:
    """Reads ``Profile.energy_mj``, which only an energy pass on a machine with a counter fills."""

    name = "energy"
    axes: tuple[Axis, ...] = (ENERGY,)

    def axis(self, name: str) -> Axis | None:
        return ENERGY if name == ENERGY.name else None

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        if profile.energy_mj is None:
            return Measurement.missing(axis, profile.energy_reason or "this version has no energy pass")
        e = profile.energy_mj
        return Measurement(axis, e.value, e.low, e.high, 1, "hardware counter, idle power subtracted")


METER = EnergyMeter()
