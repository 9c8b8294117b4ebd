"""What the machine adds to the uncertainty of a timed figure: processes that differ, and drift through a study."""

from __future__ import annotations

import math

from autopilot import stats
from autopilot.profile import Interval, LatencyReading, Profile


def absolute(found: Interval, profile: Profile, reading: LatencyReading, *, is_rate: bool = False) -> Interval:
    """``found`` of ``reading`` with the spread between processes and the drift that the study saw.

    ``is_rate``: more is faster, so that a slower machine makes it smaller.
    """
    control = profile.control
    if control is not None:
        # The control's spread is that of a ratio of two processes.
        one = control.spread / math.sqrt(2)
        found = stats.widened(found, one, processes=reading.processes, pairs=control.pairs)
    drift = 1 / (1 + profile.drift) - 1 if is_rate else profile.drift
    return stats.carried(found, drift)


def ratio(found: Interval, profile: Profile, reading: LatencyReading) -> Interval:
    """``found``, an interleaved ratio to the baseline, with the spread between processes; drift cancels."""
    control = profile.control
    if control is None:
        return found
    return stats.widened(found, control.spread, processes=reading.processes, pairs=control.pairs)


def said(profile: Profile) -> str:
    """What of it is in a figure, for ``how``; empty when nothing is."""
    parts = []
    if profile.control is not None:
        parts.append(f"spread of {profile.control.spread * 100:.2g}% between processes included")
    if abs(profile.drift) >= _WORTH_SAYING:
        parts.append(f"drift of {profile.drift * 100:+.1f}% included")
    return "".join(f", {part}" for part in parts)


# Below this a drift is not to be told from the medians' own scatter.
_WORTH_SAYING = 0.005
