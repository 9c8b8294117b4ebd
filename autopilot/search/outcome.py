"""What is known of a variant while it is measured, and how much effort a measurement takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from autopilot.artifact import Artifact
from autopilot.contracts import Stage
from autopilot.profile import Measurement, Profile
from autopilot.recipe import Variant


@dataclass(frozen=True, slots=True)
class Effort:
    """How long latency is sampled.

    Until every limit is decided, for ``cap_s`` at most; then until half the width of the
    objective's interval is ``precision`` of its value, for ``precise_s`` at most.
    ``ends_early`` tells whether a certain violation ends the trial.
    """

    cap_s: float
    precise_s: float
    precision: float
    ends_early: bool


SCREENING = Effort(cap_s=4.0, precise_s=1.5, precision=0.02, ends_early=True)
VERIFYING = Effort(cap_s=30.0, precise_s=8.0, precision=0.01, ends_early=False)


@dataclass(slots=True)
class Outcome:
    """What is known of one variant after its trial.

    ``stage`` is the last one that was run, ``broken`` the limits certainly violated, ``cut_short``
    the reason why the trial ended before everything was measured.
    """

    variant: Variant
    artifact: Artifact
    measured: dict[str, Measurement] = field(default_factory=dict)
    profile: Profile | None = None
    stage: Stage = Stage.BUILD
    broken: tuple[str, ...] = ()
    cut_short: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, key: str) -> Iterator[None]:
        """Add the wall seconds of a block to ``seconds[key]``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - start
