"""What the machine adds to the uncertainty of a timed figure: processes that differ, and drift through a study."""

from __future__ import annotations

import math
from enum import Enum

from autopilot import stats
from autopilot.profile import Interval, LatencyReading, Profile

# Busier than this a queue has no steady length to speak of, and what is answered is what the server can.
_FULL = 0.95
# Below this a drift is not to be told from the medians' own scatter.
_WORTH_SAYING = 0.005


class Kind(Enum):
    """How a figure follows from the speed of the server process."""

    LATENCY = "waiting included"
    RATE = "more is faster"
    WORK = "processor time of a sample"


def absolute(found: Interval, profile: Profile, reading: LatencyReading, kind: Kind) -> Interval:
    """``found`` of ``reading`` with the spread between processes and the drift that the study saw."""
    weight = _weight(reading, kind)
    control = profile.control
    if control is not None:
        # The control's spread is that of a ratio of two processes.
        one = weight * control.spread / math.sqrt(2)
        found = stats.widened(found, one, processes=reading.processes, pairs=control.pairs)
    if not weight:
        return found
    return stats.carried(found, 1 / (1 + profile.drift) - 1 if kind is Kind.RATE else profile.drift)


def ratio(found: Interval, profile: Profile, reading: LatencyReading, kind: Kind) -> Interval:
    """``found``, an interleaved ratio to the baseline, with the spread between processes; drift cancels."""
    control = profile.control
    if control is None:
        return found
    spread = _weight(reading, kind) * control.spread
    return stats.widened(found, spread, processes=reading.processes, pairs=control.pairs)


def _weight(reading: LatencyReading, kind: Kind) -> float:
    """How many percent one percent of a run's time is in the figure.

    Under scheduled load waiting multiplies it: the mean wait goes with S * rho / (1 - rho), and rho with
    the time of a run S, so that one percent of S is 1 / (1 - rho) percent of the wait (Pollaczek 1930,
    Khinchine 1932). What is answered is what comes, as long as the server keeps up.
    """
    if reading.traffic is None or kind is Kind.WORK:
        return 1.0
    busy = reading.traffic.busy_share
    if kind is Kind.RATE:
        return 1.0 if busy >= _FULL else 0.0
    return 1 / (1 - min(busy, _FULL))


def said(profile: Profile) -> str:
    """What of it is in a figure, for ``how``; empty when nothing is."""
    parts = []
    if profile.control is not None:
        parts.append(f"spread of {profile.control.spread * 100:.2g}% between processes included")
    if abs(profile.drift) >= _WORTH_SAYING:
        parts.append(f"drift of {profile.drift * 100:+.1f}% included")
    return "".join(f", {part}" for part in parts)
