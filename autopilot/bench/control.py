"""The A/A control of a study: the baseline against itself in fresh processes. What differs is the machine's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import variance

import numpy as np

from autopilot.bench.launcher import measure_latency
from autopilot.bench.live import Server
from autopilot.profile import Control, LatencyReading

# Fresh processes beside the live one. Each gives a degree of freedom: with 4 the 97.5% quantile of
# Student's t is 2.8, with 2 it is 4.3, and more processes gain little for their time.
PROCESSES = 4
FEWEST = 2
# Of blocks a pair: the median of a small model is then known to some 0.2%, about what processes differ by.
PAIR_S = 0.8
# Slow models start and answer slowly: two processes must do for them.
CAP_S = 8.0


Pairs = Sequence[tuple[LatencyReading, LatencyReading]]


def measure_control(live: Server, start: Callable[[], Server], *, pair_s: float = PAIR_S) -> Control:
    """How far ``live`` and fresh processes of the same model and deployment differ.

    Args:
        live: the baseline's server.
        start: gives another server of the same; it is closed here.
        pair_s: seconds of measuring a pair.

    Raises:
        VariantFailed: a server doesn't start or ends.
    """
    return summarise(read_pairs(live, start, pair_s=pair_s))


def read_pairs(live: Server, start: Callable[[], Server], *, pair_s: float = PAIR_S) -> Pairs:
    """Interleaved readings of fresh processes, one after the other, each (its own, the live one's beside it).

    Args:
        live: a server.
        start: gives another server of the same model and deployment; it is closed here.
        pair_s: seconds of measuring a pair.

    Raises:
        VariantFailed: a server doesn't start or ends.
    """
    deadline = time.monotonic() + CAP_S
    readings: list[tuple[LatencyReading, LatencyReading]] = []
    while len(readings) < PROCESSES and (len(readings) < FEWEST or time.monotonic() < deadline):
        with start() as other:
            mine, beside = measure_latency(other, live, decided=lambda *_: False, cap_s=pair_s)
            assert beside is not None
            readings.append((mine, beside))
    return readings


def summarise(readings: Pairs) -> Control:
    """The control that pairs of readings (a fresh process, the live one beside it) show.

    All are compared with the same live process: the variance of the logarithms, the live process's
    zero among them, is that of one process, and a ratio of two processes has twice as much.
    """
    medians = [_log_ratio(mine, live, 50.0) for mine, live in readings]
    tails = [_log_ratio(mine, live, 99.0) for mine, live in readings]
    return Control(
        spread=math.sqrt(2 * variance([0.0, *medians])),
        pairs=len(readings),
        p50_percent=100 * math.expm1(max(abs(m) for m in medians)),
        p99_percent=100 * math.expm1(max(abs(t) for t in tails)),
    )


def _log_ratio(a: LatencyReading, b: LatencyReading, q: float) -> float:
    return math.log(float(np.percentile(a.latency_s, q)) / float(np.percentile(b.latency_s, q)))
