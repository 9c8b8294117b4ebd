"""How long a study's child processes may take: what the spec allows, and less as the study's time runs out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from autopilot.bench.child import ChildLimits

# A child may overrun the study's time by this much: with less, a build that was nearly done would be lost.
GRACE_S = 30.0


class Allowance:
    """The limits of children, of which each gets less once the study's ``deadline`` is near.

    ``usual``: the spec's limits. ``deadline`` is on ``clock``; None for no end.
    """

    def __init__(self, usual: ChildLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.deadline: float | None = None
        self._usual = usual
        self._clock = clock

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, below 0 after it; infinite without one."""
        return math.inf if self.deadline is None else self.deadline - self._clock()

    @property
    def limits(self) -> ChildLimits:
        """The limits of a child that is started now."""
        return replace(self._usual, wall_s=min(self._usual.wall_s, max(GRACE_S, self.left_s)))

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed by more than one child may overrun it: nothing further is worth starting."""
        return self.left_s < -GRACE_S
