"""What is known of a variant while it is measured, and how much effort a measurement takes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from autopilot.artifact import Artifact
from autopilot.contracts import Stage
from autopilot.errors import Failure
from autopilot.profile import Measurement, Profile
from autopilot.recipe import Variant
from autopilot.spec import Problem
from autopilot.stats import enough_for

PERCENTILE = re.compile(r"latency_p(?P<q>\d{1,2}(?:\.\d{1,3})?)_ms")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long latency is sampled.

    Until every limit is decided, for ``cap_s`` at most; then until half the width of the
    objective's interval is ``precision`` of its value, for ``precise_s`` at most.
    ``ends_early`` tells whether a certain violation ends the trial; ``rounds`` how many pairs of fresh
    processes are read at least, since two processes of one model differ for as long as they live.
    """

    cap_s: float
    precise_s: float
    precision: float
    ends_early: bool
    rounds: int = 1


SCREENING = Effort(cap_s=4.0, precise_s=1.5, precision=0.02, ends_early=True)
VERIFYING = Effort(cap_s=30.0, precise_s=4.0, precision=0.01, ends_early=False, rounds=3)
BASELINE = replace(SCREENING, ends_early=False)
# A percentile needs so many independent requests to have an upper bound at all; neighbours are not quite.
DEPENDENT = 1.5
# The share of a study's time that verifying one slow variant may take.
SLOW_SHARE = 0.2


def cap_s(effort: Effort, problem: Problem, *, pair_s: float) -> float:
    """How long latency may be sampled, in seconds: for verifying slow models longer than usual.

    With two servers of 60 ms a request, the 368 requests that bound a p99 take 44 s: any fixed cap
    would leave such a limit undecided for ever. ``pair_s``: seconds of one request of all servers.
    """
    if effort is not VERIFYING:
        return min(effort.cap_s, problem.search.measure_cap_s)
    return max(problem.search.measure_cap_s, needed_s(problem, pair_s=pair_s))


def needed_s(problem: Problem, *, pair_s: float) -> float:
    """How long requests are read before the budget's percentiles have upper bounds at all, in seconds."""
    percentiles = [float(m["q"]) for axis in problem.budget.axes if (m := PERCENTILE.fullmatch(axis))]
    requests = max((enough_for(q) for q in percentiles), default=0)
    return min(DEPENDENT * requests * pair_s, SLOW_SHARE * problem.search.timeout_s)


_STAGES = tuple(Stage)
# Why a trial can't tell anything that matters, from what was measured so far; None to go on.
GiveUp = Callable[[Mapping[str, Measurement]], str | None]
# One more attempt for endings that may be bad luck.
RETRIED = (Failure.CRASH, Failure.TIMEOUT)


@dataclass(slots=True)
class Outcome:
    """What is known of one variant after its trial.

    ``stage`` is the furthest one that was run, ``broken`` the limits certainly violated, ``cut_short``
    the reason why the trial ended before everything was measured. ``baseline_samples`` names the kept
    readings of the baseline that ratios were taken against; empty where this is the baseline itself. ``remark`` is
    what its record says of it where it didn't end early.
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
    baseline_samples: str = ""
    remark: str = ""

    def reach(self, stage: Stage) -> None:
        """``stage`` was run; they are run in any order."""
        self.stage = max(self.stage, stage, key=_STAGES.index)

    @contextmanager
    def timed(self, key: str, *, out_of: str = "") -> Iterator[None]:
        """Add the wall seconds of a block to ``seconds[key]``.

        ``out_of``: the key of a block around it, which doesn't count them: the seconds of a trial add up.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            took_s = time.perf_counter() - start
            self.seconds[key] = self.seconds.get(key, 0.0) + took_s
            if out_of:
                self.seconds[out_of] = self.seconds.get(out_of, 0.0) - took_s
