"""The latency pass in server traffic."""

from __future__ import annotations

from dataclasses import replace

from autopilot.bench.launcher import Decided, Server
from autopilot.bench.max_rate import Judge, find_max_rate, with_max_rate
from autopilot.bench.rounds import Readings, Servers
from autopilot.bench.traffic import MIN_WINDOWS, Paced, Plan, measure_traffic
from autopilot.budget import Judgement
from autopilot.contracts import Stage
from autopilot.profile import LatencyReading, Profile
from autopilot.search.outcome import Effort, cap_s
from autopilot.search.prepare import Setup
from autopilot.search.summary import measurement

MAX_RATE = "max_rate_rps"
# Intervals are worth little from fewer windows, so that these are served however long they take.
_WINDOWS = 2 * MIN_WINDOWS
# Seconds that the search for the highest rate may take, while screening and while verifying.
_SCREENING_S, _VERIFYING_S = 15.0, 45.0

# A candidate and, where there is one, a baseline: live, or what is known of them.
Pair = tuple[Paced, Paced | None]


class TrafficPass:
    """As ``measure_latency``, under the spec's load; with the highest rate where the spec names it.

    One for all rounds of a variant: the rate is looked for in the first.
    """

    def __init__(self, setup: Setup, effort: Effort) -> None:
        self._setup = setup
        self._effort = effort
        self._rounds = 0
        self._planned = 1

    def __call__(self, candidate: Server, baseline: Server | None, *, decided: Decided, cap_s: float) -> Readings:
        """One round's reading.

        Raises:
            WorkerDied: a server ended or gave no answer.
        """
        self._rounds += 1
        pair, setup, effort = (candidate, baseline), self._setup, self._effort
        if self._rounds == 1:
            self._planned = planned_rounds(setup, pair, effort)
        windows = max(MIN_WINDOWS, _WINDOWS // self._planned)
        least_s = max(cap_s, windows * _window_pair_s(setup, pair))
        fixed, seed = setup.fixed_batch is not None, setup.problem.search.seed
        found = measure_traffic(candidate, baseline, setup.load, decided=decided, cap_s=least_s, seed=seed, fixed=fixed)
        if self._rounds > 1 or not _asks_rate(setup):
            return found
        return _with_max_rates(setup, pair, found, effort)


def highest_rate_s(setup: Setup) -> float:
    """Seconds that looking for the highest rates takes while verifying: of the candidate and the baseline."""
    return 2 * _VERIFYING_S if setup.problem.traffic.is_server and _asks_rate(setup) else 0.0


def _asks_rate(setup: Setup) -> bool:
    return MAX_RATE in (*setup.problem.budget.axes, *setup.problem.objectives)


def request_pair_s(setup: Setup, pair: Pair) -> float:
    """Seconds that one request of all servers takes under the spec's load, pauses included."""
    requests = max(1.0, setup.load.rate_rps * setup.load.window_s)
    return _window_pair_s(setup, pair) / requests


def planned_rounds(setup: Setup, pair: Pair, effort: Effort) -> int:
    """The pairs of fresh processes that there is time for."""
    cap = cap_s(effort, setup.problem, pair_s=request_pair_s(setup, pair))
    return max(1, min(effort.rounds, int(cap / round_s(setup, pair))))


def round_s(setup: Setup, pair: Pair) -> float:
    """Seconds of the shortest round that says something: so many windows of all servers."""
    return MIN_WINDOWS * _window_pair_s(setup, pair)


def _window_pair_s(setup: Setup, pair: Pair) -> float:
    """Seconds that one window of each server takes."""
    servers = [s for s in pair if s is not None]
    return len(servers) * Plan.of(setup.load, servers).spent_s


def _with_max_rates(setup: Setup, pair: Servers, found: Readings, effort: Effort) -> Readings:
    """``found`` with the highest rates: the candidate's, when verifying the baseline's too."""
    (candidate, baseline), (reading, beside) = pair, found
    fixed, seed = setup.fixed_batch is not None, setup.problem.search.seed
    judge, most_s = limits_judge(setup), _SCREENING_S if effort.ends_early else _VERIFYING_S

    def searched(server: Server, known: LatencyReading) -> LatencyReading:
        highest = find_max_rate(server, setup.load, judge, cap_s=most_s, known=known, seed=seed, fixed=fixed)
        return with_max_rate(known, highest)

    reading = searched(candidate, reading)
    if beside is not None and baseline is not None and not effort.ends_early:
        beside = searched(baseline, beside)
    return reading, beside


def limits_judge(setup: Setup) -> Judge:
    """Whether every latency limit in milliseconds holds in a reading: for certain, and by the figures alone."""
    limits = [x for x in setup.problem.budget.limits if x.axis.startswith("latency_") and not x.relative]

    def judge(reading: LatencyReading) -> tuple[bool | None, bool]:
        if not reading.latency_s.size:
            return None, True
        profile = Profile("", latency=reading)
        certain: list[Judgement] = []
        likely = True
        for limit in limits:
            found = measurement(limit.axis, profile, Stage.LATENCY)
            assert found is not None
            assert found.value is not None
            certain.append(limit.judge(found))
            likely &= limit.judge(replace(found, low=found.value, high=found.value)) is Judgement.IN
        if Judgement.OUT in certain:
            return False, False
        return (True, True) if all(c is Judgement.IN for c in certain) else (None, likely)

    return judge
