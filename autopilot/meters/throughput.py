"""throughput_rps: samples a second, from the wall time of whole blocks of back-to-back requests."""

from __future__ import annotations

import numpy as np

from autopilot import stats
from autopilot.contracts import Axis, Stage
from autopilot.meters import _machine
from autopilot.profile import Floats, Interval, LatencyReading, Measurement, Profile

THROUGHPUT = Axis("throughput_rps", True, Stage.LATENCY, "samples answered a second")


def samples_and_seconds(reading: LatencyReading) -> tuple[Floats, Floats]:
    """Samples answered and wall seconds of each block; float64, shape (n_blocks,) both."""
    if reading.traffic is not None:
        return reading.traffic.answered.astype(np.float64) * reading.samples_per_request, reading.block_wall_s
    counts = np.bincount(reading.block, minlength=reading.block_wall_s.size)
    return counts.astype(np.float64) * reading.samples_per_request, reading.block_wall_s


class ThroughputMeter:
    """Reads ``Profile.latency``; what passes between two requests of a block counts too."""

    name = "throughput"
    axes: tuple[Axis, ...] = (THROUGHPUT,)

    def axis(self, name: str) -> Axis | None:
        return THROUGHPUT if name == THROUGHPUT.name else None

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        reading = profile.latency
        if reading is None or reading.latency_s.size == 0:
            return Measurement.missing(axis, "throughput was not measured: the trial ended before that")
        samples, seconds = samples_and_seconds(reading)
        found = _machine.absolute(stats.rate_interval(samples, seconds), profile, reading, _machine.Kind.RATE)
        how = f"{samples.sum():.0f} samples in {seconds.sum():.2f} s, {seconds.size} blocks{_machine.said(profile)}"
        return Measurement(axis, found.value, found.low, found.high, int(samples.sum()), how, self._ratio(profile))

    @staticmethod
    def _ratio(profile: Profile) -> Interval | None:
        a, b = profile.latency, profile.baseline_latency
        if a is None or b is None or b.latency_s.size == 0:
            return None
        own, other = samples_and_seconds(a), samples_and_seconds(b)
        if not (own[0].any() and other[0].any()):
            return None
        return _machine.ratio(stats.rate_ratio_interval(own, other), profile, a, _machine.Kind.RATE)


METER = ThroughputMeter()
