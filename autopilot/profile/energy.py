"""Readings of an energy counter."""

from __future__ import annotations

from dataclasses import dataclass

from autopilot.profile.measurement import Floats


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """A hardware counter over pairs of blocks: one with the server asleep, one with it busy.

    busy_mj, idle_mj: float64, shape (pairs,), what the counter rose by, millijoules, of the whole hardware.
    busy_s, idle_s: float64, shape (pairs,), wall seconds between the two readings of a block.
    samples: float64, shape (pairs,), samples answered in the busy block.
    source, scope: which counter, and what it includes.
    update_s: seconds between two updates of the counter, as found before the pass.
    """

    busy_mj: Floats
    busy_s: Floats
    idle_mj: Floats
    idle_s: Floats
    samples: Floats
    source: str
    scope: str
    update_s: float

    @property
    def idle_w(self) -> float:
        """Power of the hardware with the server asleep, in watts."""
        return float(self.idle_mj.sum() / self.idle_s.sum()) / 1e3

    @property
    def updates(self) -> float:
        """How often the counter was updated while the server was busy."""
        return float(self.busy_s.sum()) / self.update_s
