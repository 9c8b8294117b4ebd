"""load_s: from process start to the first answer."""

from __future__ import annotations

import numpy as np

from autopilot import stats
from autopilot.contracts import Axis, Stage
from autopilot.profile import Measurement, Profile

LOAD = Axis("load_s", False, Stage.SMOKE, "seconds from process start to the first answer")


class LoadMeter:
    """Reads ``Profile.load_s``; files are in the page cache by then, as they are for a restarted server."""

    name = "load"
    axes: tuple[Axis, ...] = (LOAD,)

    def axis(self, name: str) -> Axis | None:
        return LOAD if name == LOAD.name else None

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        starts = profile.load_s
        if starts is None or starts.size == 0:
            return Measurement.missing(axis, "start time was not measured: the trial ended before that")
        how = f"process start to first answer, {starts.size} fresh process{'es' if starts.size > 1 else ''}"
        if starts.size == 1:
            how += "; one start has no interval"
        found = stats.mean_interval(starts, np.arange(starts.size, dtype=np.int32))
        return Measurement(axis, found.value, found.low, found.high, starts.size, how)


METER = LoadMeter()
