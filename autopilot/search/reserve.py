"""The time to keep free for the end: how long measuring finalists again should take, from what their trials took.

Time is kept free for it while the search goes on. A slow model with a limit on a high percentile takes minutes: the
368 requests that bound a p99 (half as many again, since neighbours are alike) are read from both models, in rounds of
fresh processes, each of which has to be started and warmed up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autopilot.bench.live import WARM_UP_CAP_S
from autopilot.budget import Judgement
from autopilot.profile import Measurement
from autopilot.recipe import Deployment
from autopilot.result import TrialRecord
from autopilot.search import energy
from autopilot.search.finalists import line_up
from autopilot.search.outcome import VERIFYING, Outcome, needed_s
from autopilot.search.prepare import Setup
from autopilot.search.ranking import Ranking
from autopilot.search.stages import MEETINGS, SHAPES
from autopilot.search.timing import plan_of
from autopilot.search.traffic import highest_rate_s, request_pair_s

# Operators of two models, and writing the result.
AFTER_S = 5.0
# The most that is kept free for two finalists: with more a short study would try next to nothing.
KEPT_SHARE = 0.4
# The most that is kept free for the first, which is measured whatever the time is.
FIRST_SHARE = 0.6
# Warm-up is over when two windows of four blocks agree; some take a window more. A block is at least so many
# requests, or seconds, long (autopilot/bench/server.py).
_WARM_BLOCKS, _WARM_BLOCK_REQUESTS, _WARM_BLOCK_S = 12, 4, 0.01


@dataclass(frozen=True, slots=True)
class Seen:
    """What a first measurement tells of a second one of the same variant; ``baseline``'s own is told likewise.

    ``seconds``: by stage, as in its record. ``is_open``: whether a limit on latency is undecided. ``window_s``: of
    scheduled traffic, in which requests wait: what takes longer than a window says nothing of the model.
    """

    deployment: Deployment
    measured: Mapping[str, Measurement]
    seconds: Mapping[str, float]
    is_open: bool = False
    window_s: float = math.inf

    @classmethod
    def of(cls, seen: TrialRecord | Outcome, setup: Setup) -> Seen:
        """What a trial's record holds, or the baseline's outcome."""
        verdict = setup.problem.budget.judge(seen.measured)
        is_open = any(
            axis.startswith("latency_") and said is Judgement.UNDECIDED for axis, said in verdict.per_limit.items()
        )
        window_s = setup.load.window_s if setup.problem.traffic.is_server else math.inf
        return cls(seen.variant.deployment, seen.measured, seen.seconds, is_open, window_s)

    @property
    def request_s(self) -> float:
        """Seconds of a request; 0 where none was timed."""
        return min(self._value("latency_p50_ms") / 1e3, self.window_s)

    @property
    def start_s(self) -> float:
        """Seconds until a fresh process of it is warm, and ready for scheduled requests."""
        block_s = max(_WARM_BLOCK_S, _WARM_BLOCK_REQUESTS * self.request_s)
        return self._value("load_s") + min(WARM_UP_CAP_S, _WARM_BLOCKS * block_s) + self.shapes_s

    @property
    def shapes_s(self) -> float:
        """Seconds of first runs in one process."""
        return self.seconds.get(SHAPES, 0.0) / MEETINGS

    @property
    def score_s(self) -> float:
        """Seconds that scoring takes where no cache has it."""
        return self.seconds.get("evaluate", 0.0) + self.seconds.get("evaluate_saved", 0.0)

    def _value(self, axis: str) -> float:
        """0 where it wasn't measured."""
        found = self.measured.get(axis)
        return found.value if found is not None and found.value is not None else 0.0


def verifying_s(setup: Setup, seen: TrialRecord | Outcome, baseline: Outcome) -> float:
    """Seconds that measuring a variant again beside the baseline should take, on the held-back data."""
    mine, beside = Seen.of(seen, setup), Seen.of(baseline, setup)
    load_s, score_s = mine.seconds.get("load", 0.0) + mine.shapes_s, mine.score_s * _held_back(setup)
    return load_s + _latency_s(setup, mine, beside) + energy.expected_s(setup.target) + score_s


def building_s(record: TrialRecord) -> float:
    """Seconds that it should take to have ``record``'s artifact here; 0 where it is, or is the model as given.

    The cache may have let go of it, or another run's machine of a shared study has it.
    """
    if not record.variant.recipe.steps or record.artifact is None or all(f.exists() for f in record.artifact.files):
        return 0.0
    return record.seconds.get("build", 0.0) + record.seconds.get("build_saved", 0.0)


def reserve_s(setup: Setup, records: Sequence[TrialRecord], ranking: Ranking, baseline: Outcome) -> float:
    """Seconds to keep free at the end: for the two variants that are best so far, and for the baseline's score.

    One may fail, or tie with the other. While there aren't two, the baseline stands for the missing ones.
    """
    timeout_s = setup.problem.search.timeout_s
    best: list[TrialRecord | Outcome] = [*line_up(records, ranking)[:2], baseline, baseline]
    first_s, second_s = (verifying_s(setup, seen, baseline) for seen in best[:2])
    first_s += _beside_s(setup, baseline)
    return max(min(first_s + second_s, KEPT_SHARE * timeout_s), min(first_s, FIRST_SHARE * timeout_s))


def first_reserve_s(setup: Setup, baseline: Outcome) -> float:
    """Seconds that the first finalist should take at the end, as long as no variant tells better than ``baseline``."""
    return verifying_s(setup, baseline, baseline) + _beside_s(setup, baseline)


def _beside_s(setup: Setup, baseline: Outcome) -> float:
    """Seconds of the end that come once: the baseline's score on the held-back data, and what follows the last."""
    return Seen.of(baseline, setup).score_s * _held_back(setup) + AFTER_S


def _held_back(setup: Setup) -> float:
    """Samples that finalists are scored on, for one that trials are."""
    return setup.splits.test.n / max(1, setup.splits.validation.n)


def _latency_s(setup: Setup, seen: Seen, baseline: Seen) -> float:
    """Seconds of the latency pass: its rounds as they will be planned, to the cap where a limit was undecided."""
    pair = (seen, baseline)
    plan = plan_of(setup, VERIFYING, pair)
    is_server = setup.problem.traffic.is_server
    pair_s = request_pair_s(setup, pair) if is_server else seen.request_s + baseline.request_s
    least_s = max(plan.rounds * plan.round_s, VERIFYING.precise_s, needed_s(setup.problem, pair_s=pair_s))
    read_s = max(least_s, plan.cap_s) if seen.is_open else least_s
    rounds = max(plan.rounds, math.ceil(read_s / plan.round_s))
    return read_s + rounds * (seen.start_s + baseline.start_s) + highest_rate_s(setup)
