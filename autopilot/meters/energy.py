"""energy_mj: millijoules a sample, from a hardware counter with idle power subtracted; never an estimate."""

from __future__ import annotations

from autopilot import stats
from autopilot.contracts import Axis, Stage
from autopilot.profile import EnergyReading, Interval, Measurement, Profile

ENERGY = Axis("energy_mj", False, Stage.LATENCY, "energy a sample above idle, in millijoules")


def _above_idle(e: EnergyReading) -> Interval:
    return stats.excess_interval((e.busy_mj, e.busy_s), (e.idle_mj, e.idle_s), e.samples)


class EnergyMeter:
    """Reads ``Profile.energy``, which only an energy pass on a machine with a counter fills."""

    name = "energy"
    axes: tuple[Axis, ...] = (ENERGY,)

    def axis(self, name: str) -> Axis | None:
        return ENERGY if name == ENERGY.name else None

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        e = profile.energy
        if e is None:
            reason = profile.energy_reason or "energy was not read: the trial ended before that"
            return Measurement.missing(axis, reason)
        found = _above_idle(e)
        n = round(float(e.samples.sum()))
        how = (
            f"{e.source} counter ({e.scope}), {n} samples in {e.busy_s.sum():.1f} s, {e.updates:.0f} counter updates, "
            f"{e.samples.size} pairs of idle and busy blocks, idle power of {e.idle_w:.2f} W subtracted"
        )
        return Measurement(axis, found.value, found.low, found.high, n, how)


METER = EnergyMeter()
