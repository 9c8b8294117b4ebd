"""Which of two served models is faster: fresh pairs of processes, interleaved blocks, a boundary that holds.

from autopilot.bench.compare import Served, compare

found = compare(Served(old, deployment), Served(new, deployment), split=split, limits=ChildLimits(60.0))
print(found.verdict, found.ratio)
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot import stats
from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import Server, measure_latency
from autopilot.profile import Interval, LatencyReading
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    from autopilot.data import Split

# Fewer pairs of processes say next to nothing of the spread between them: t would be 4.3 with three.
LEAST_ROUNDS = 4
# A quarter more rounds than this would narrow the interval by a tenth only.
MOST_ROUNDS = 24
# Some ten pairs of blocks, more where a request takes long: what processes add is then the larger part.
ROUND_S = 0.6


class Standing(StrEnum):
    """What a comparison says of ``a``: ``TIE`` where its ratio to ``b`` may be 1."""

    FASTER = "faster"
    SLOWER = "slower"
    TIE = "tie"


@dataclass(frozen=True, slots=True)
class Served:
    """A model file and how it is run."""

    artifact: Path
    deployment: Deployment


@dataclass(frozen=True, slots=True)
class Comparison:
    """``ratio`` is a's latency over b's (1.05: ``a`` takes 5% longer), its bounds good at whatever round it ended.

    ``requests`` were timed of each model together in ``rounds`` pairs of fresh processes; ``seconds`` it took
    in all, starts and warm-up included.
    """

    ratio: Interval
    requests: tuple[int, int]
    rounds: int
    seconds: float

    @property
    def verdict(self) -> Standing:
        if self.ratio.high < 1:
            return Standing.FASTER
        return Standing.SLOWER if self.ratio.low > 1 else Standing.TIE

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "ratio": self.ratio.to_json(),
            "requests": list(self.requests),
            "rounds": self.rounds,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Round:
    """What one pair of fresh processes gave: the ratio of both latencies, requests of each.

    Without an interval: how rounds scatter holds what requests add, and the ten blocks of one round know
    their own scatter so badly (t of 9 for two degrees of freedom) that 24 rounds would be needed for 2%.
    """

    ratio: float
    requests: tuple[int, int]


# The round with this number.
TakeRound = Callable[[int], Round]


def compare(
    a: Served,
    b: Served,
    *,
    split: Split,
    limits: ChildLimits,
    q: float | None = 50.0,
    precision: float = 0.01,
    cap_s: float = 30.0,
    rounds: int = LEAST_ROUNDS,
) -> Comparison:
    """Compare the latency of ``a`` with that of ``b``, in rounds of fresh pairs of processes.

    Ends at the first look that shows a difference, or that knows the ratio to ``precision``, or when
    another round would go over ``cap_s``. All bounds are Pocock's for the looks that may be taken, so
    that two equal models are told apart in at most 5% of the cases however often is looked.

    Args:
        a: a model and its deployment.
        b: another one, or the same.
        split: real samples, served to both.
        limits: of each serving process.
        q: the percentile that is compared; None for the mean.
        precision: half-width of the ratio's interval that is good enough, as a share.
        cap_s: seconds for everything; ``rounds`` rounds are taken all the same.
        rounds: how many pairs of processes at least.

    Raises:
        VariantFailed: a model doesn't load or answer.
        ValueError: fewer rounds than ``LEAST_ROUNDS`` or more than ``MOST_ROUNDS``.
    """

    def take(number: int) -> Round:
        first, second = _read_pair(a, b, number, split=split, limits=limits, cap_s=max(ROUND_S, cap_s / rounds))
        ratio = stats.ratio_interval(first.latency_s, first.block, second.latency_s, second.block, q=q)
        return Round(ratio.value, (first.latency_s.size, second.latency_s.size))

    return in_rounds(take, precision=precision, cap_s=cap_s, rounds=rounds)


def in_rounds(
    take: TakeRound,
    *,
    precision: float,
    cap_s: float,
    rounds: int = LEAST_ROUNDS,
    clock: Callable[[], float] = time.monotonic,
) -> Comparison:
    """The comparison from rounds that ``take`` gives, as many as it needs.

    Raises:
        ValueError: ``rounds`` is not between ``LEAST_ROUNDS`` and ``MOST_ROUNDS``.
    """
    if not LEAST_ROUNDS <= rounds <= MOST_ROUNDS:
        raise ValueError(f"{rounds} rounds; take {LEAST_ROUNDS} to {MOST_ROUNDS}")
    looks = stats.look_sizes(rounds, MOST_ROUNDS)
    level = stats.level_at_looks(looks)
    start, taken = clock(), list[Round]()
    while True:
        taken.append(take(len(taken)))
        elapsed_s = clock() - start
        out_of_time = len(taken) >= rounds and elapsed_s * (len(taken) + 1) / len(taken) > cap_s
        if len(taken) not in looks and not out_of_time:
            continue
        requests = (sum(r.requests[0] for r in taken), sum(r.requests[1] for r in taken))
        ratio = stats.ratio_over_processes([Interval(r.ratio, r.ratio, r.ratio) for r in taken], level)
        found = Comparison(ratio, requests, len(taken), elapsed_s)
        sure = math.log(ratio.high / ratio.low) / 2 <= math.log1p(precision) if ratio.low > 0 else False
        if out_of_time or sure or found.verdict is not Standing.TIE or len(taken) == MOST_ROUNDS:
            return found


def _read_pair(
    a: Served, b: Served, number: int, *, split: Split, limits: ChildLimits, cap_s: float
) -> tuple[LatencyReading, LatencyReading]:
    """Readings of two fresh processes side by side.

    Who is started first and who leads the first block takes turns: memory is laid out by who came first.
    """
    swapped = bool(number % 2)
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(Server.start(s.artifact, s.deployment, split=split, limits=limits))
            for s in ((b, a) if swapped else (a, b))
        ]
        leading, other = measure_latency(servers[0], servers[1], decided=lambda *_: True, cap_s=cap_s, min_s=ROUND_S)
    assert other is not None
    return (other, leading) if swapped else (leading, other)
