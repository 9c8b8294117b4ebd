"""cpu_ms: processor time a sample, over all threads of the serving process."""

from __future__ import annotations

from autopilot import stats
from autopilot.contracts import Axis, Stage
from autopilot.meters import _machine
from autopilot.meters.throughput import samples_and_seconds
from autopilot.profile import Floats, Interval, LatencyReading, Measurement, Profile

CPU = Axis("cpu_ms", False, Stage.LATENCY, "processor time a sample, spinning threads included, in milliseconds")
_MS = 1e3


def _cpu_and_samples(reading: LatencyReading) -> tuple[Floats, Floats]:
    return reading.block_cpu_s, samples_and_seconds(reading)[0]


class CpuMeter:
    """Reads ``Profile.latency``'s processor seconds."""

    name = "cpu"
    axes: tuple[Axis, ...] = (CPU,)

    def axis(self, name: str) -> Axis | None:
        return CPU if name == CPU.name else None

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        reading = profile.latency
        if reading is None or reading.latency_s.size == 0:
            return Measurement.missing(axis, "processor time was not measured: the trial ended before that")
        cpu_s, samples = _cpu_and_samples(reading)
        if not samples.any():
            return Measurement.missing(axis, "no request was answered in the time that was measured")
        found = _machine.absolute(stats.rate_interval(cpu_s, samples), profile, reading, _machine.Kind.WORK)
        cores = cpu_s.sum() / reading.block_wall_s.sum()
        how = f"{samples.sum():.0f} samples, {cores:.2f} cores busy while serving{_machine.said(profile)}"
        low, high = found.low * _MS, found.high * _MS
        return Measurement(axis, found.value * _MS, low, high, int(samples.sum()), how, self._ratio(profile))

    @staticmethod
    def _ratio(profile: Profile) -> Interval | None:
        a, b = profile.latency, profile.baseline_latency
        if a is None or b is None or b.latency_s.size == 0 or not (a.block_cpu_s.any() and b.block_cpu_s.any()):
            return None
        if not (samples_and_seconds(a)[0].any() and samples_and_seconds(b)[0].any()):
            return None
        found = stats.rate_ratio_interval(_cpu_and_samples(a), _cpu_and_samples(b))
        return _machine.ratio(found, profile, a, _machine.Kind.WORK)


METER = CpuMeter()
