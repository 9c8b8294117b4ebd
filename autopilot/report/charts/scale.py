"""Scales: figures to positions, and round figures to label them with. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Beyond this factor between the ends a linear axis squeezes the small figures together.
LOG_FROM = 12.0
# Room kept free at both ends of an axis, as a share of its length.
_ROOM = 0.06


@dataclass(frozen=True, slots=True)
class Scale:
    """``low`` lies at ``start``, ``high`` at ``end`` (positions, in units of the drawing)."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, *, may_be_log: bool = True) -> Scale:
        """A scale that holds all finite ``values`` with some room; logarithmic where they span a large factor."""
        found = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(found), max(found)
        if may_be_log and low > 0 and high / low > LOG_FROM:
            room = (high / low) ** _ROOM
            return cls(low / room, high * room, start, end, True)
        room = (high - low) * _ROOM or abs(high) * _ROOM or 1.0
        # What can't be negative doesn't get an axis that begins below 0.
        return cls(max(low - room, 0.0) if low >= 0 else low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """The position of ``value``, held inside of the axis: an unbounded one lies at its end."""
        if math.isnan(value) or value == -math.inf or (self.is_log and value <= 0):
            return self.start
        if math.isinf(value):
            return self.end
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        share = (value - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Up to ``most`` round figures inside of the scale, from low to high."""
        return self._log_ticks(most) if self.is_log else self._linear_ticks(most)

    def _linear_ticks(self, most: int) -> list[float]:
        rough = (self.high - self.low) / max(1, most - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 5, 10, 20) if power * m >= rough)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)][: most + 1]

    def _log_ticks(self, most: int) -> list[float]:
        lowest, highest = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for marks in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            found = [float(f"{m}e{e}") for e in range(lowest, highest + 1) for m in marks]
            found = [t for t in found if self.low <= t <= self.high]
            if len(found) <= most:
                return found or [self.low, self.high]
        return found[:: math.ceil(len(found) / most)]
