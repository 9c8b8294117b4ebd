"""The latency pass in server traffic."""

from __future__ import annotations

from dataclasses import replace

from autopilot.bench.launcher import Decided, Server
from autopilot.bench.max_rate import Judge, find_max_rate, with_max_rate
from autopilot.bench.traffic import MIN_WINDOWS, Plan, measure_traffic
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


def read_traffic(
    setup: Setup, candidate: Server, baseline: Server | None, *, decided: Decided, effort: Effort
) -> tuple[LatencyReading, LatencyReading | None]:
    """As ``measure_latency``, under the spec's load; with the highest rate where the spec names it.

    Raises:
        WorkerDied: a server ended or gave no answer.
    """
    problem, load = setup.problem, setup.load
    servers = [s for s in (candidate, baseline) if s is not None]
    plan = Plan.of(load, servers)
    pair_s = len(servers) * plan.spent_s
    cap = cap_s(
        effort,
        problem.budget,
        pair_s=pair_s / max(1.0, load.rate_rps * plan.window_s),
        timeout_s=problem.search.timeout_s,
    )
    fixed, seed = setup.fixed_batch is not None, problem.search.seed
    reading, beside = measure_traffic(
        candidate, baseline, load, decided=decided, cap_s=max(cap, _WINDOWS * pair_s), seed=seed, fixed=fixed
    )
    if MAX_RATE not in (*problem.budget.axes, problem.objective):
        return reading, beside
    judge, most_s = limits_judge(setup), _SCREENING_S if effort.ends_early else _VERIFYING_S

    def searched(server: Server, known: LatencyReading) -> LatencyReading:
        found = find_max_rate(server, load, judge, cap_s=most_s, known=known, seed=seed, fixed=fixed)
        return with_max_rate(known, found)

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
