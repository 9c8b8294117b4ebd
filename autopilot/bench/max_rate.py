"""The highest rate of scheduled traffic at which latency limits hold."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from autopilot.bench.arrivals import Load
from autopilot.bench.live import Server
from autopilot.bench.traffic import measure_traffic
from autopilot.profile import LatencyReading, RateReading

# The generator keeps to its schedule up to some such rate; above it, lateness would be its own.
MAX_RATE_RPS = 20_000.0
# A rate is known when the next one to try is less than this factor away.
_RATE_STEP = 1.05
_PROBES = 16
_PROBE_S = 3.0
# Close to the highest rate a verdict is seldom certain: the rates below it that are looked at longer, and the
# part of the time that finding it may take before.
_SURE_SHARES = (0.9, 0.75, 0.5)
_SURE_S = 8.0
_SEARCH_SHARE = 0.6

# Whether the latency limits certainly hold in a reading (None: too close to call), and whether they seem to.
Judge = Callable[[LatencyReading], tuple[bool | None, bool]]


def find_max_rate(
    server: Server,
    load: Load,
    judge: Judge,
    *,
    cap_s: float,
    known: LatencyReading | None = None,
    seed: int = 0,
    fixed: bool = False,
) -> RateReading:
    """The highest mean rate of ``load``'s kind of traffic at which ``judge`` says that the latency limits hold.

    Bisection on the logarithm of the rate, from what the server's own speed promises, until the next
    rate would be less than 5% away; then longer looks below it for a rate that certainly holds. Ends
    about ``cap_s`` seconds after it began. No rate above 20,000 is tried.
    ``known``: what was read at ``load``'s own rate.

    Raises:
        WorkerDied: the server or the generator ended or gave no answer.
    """
    if server.request_s is None:
        server.warm_up()

    def probe(rate_rps: float, most_s: float = _PROBE_S) -> tuple[bool | None, bool]:
        at, stop = load.at(rate_rps), lambda reading, beside: judge(reading)[0] is not None
        return judge(measure_traffic(server, None, at, decided=stop, cap_s=most_s, seed=seed, fixed=fixed)[0])

    assert server.request_s is not None
    d = server.deployment
    first = min(MAX_RATE_RPS, 0.7 * d.batch * d.instances / max(server.request_s, 1e-9))
    is_late = _clock(cap_s)
    found = bisect(probe, first, is_over=_clock(_SEARCH_SHARE * cap_s))
    if known is not None and judge(known)[0] is True:
        found = replace(found, low=min(found.rate_rps, max(found.low, load.rate_rps)))
    for share in _SURE_SHARES:
        rate_rps = share * found.rate_rps
        if found.low >= rate_rps or is_late():
            break
        found = replace(found, probes=found.probes + 1)
        if probe(rate_rps, _SURE_S)[0] is True:
            found = replace(found, low=rate_rps)
    return found


def _clock(cap_s: float) -> Callable[[], bool]:
    start = time.monotonic()
    return lambda: time.monotonic() - start >= cap_s


def bisect(
    probe: Callable[[float], tuple[bool | None, bool]], first: float, *, is_over: Callable[[], bool]
) -> RateReading:
    """The highest rate that ``probe`` says yes to.

    ``probe`` tells whether a rate certainly holds (None where it can't tell), and what is likelier.
    ``first`` is tried first; at most 16 rates are, and one in any case.
    """
    holds, fails = 0.0, math.inf
    surely_holds, surely_fails = 0.0, math.inf
    rate_rps, probes = first, 0
    while probes < _PROBES and not (probes and is_over()):
        certain, likely = probe(rate_rps)
        probes += 1
        if certain is True:
            surely_holds = max(surely_holds, rate_rps)
        elif certain is False:
            surely_fails = min(surely_fails, rate_rps)
        holds, fails = (rate_rps, fails) if likely else (holds, rate_rps)
        if (holds and fails / holds < _RATE_STEP) or holds >= MAX_RATE_RPS:
            break
        if not holds:
            rate_rps /= 2
        elif math.isinf(fails):
            rate_rps = min(MAX_RATE_RPS, 1.5 * rate_rps)
        else:
            rate_rps = math.sqrt(holds * fails)
    return RateReading(holds, min(surely_holds, holds), max(surely_fails, holds), probes)


def with_max_rate(reading: LatencyReading, found: RateReading) -> LatencyReading:
    """``reading`` with the highest rate found for the same server."""
    assert reading.traffic is not None
    return replace(reading, traffic=replace(reading.traffic, max_rate=found))
