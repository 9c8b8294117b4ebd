"""Host memory of the serving process (at its peak, at rest, the model's share) and memory on the GPU.

1 MB = 1,000,000 bytes.
"""

from __future__ import annotations

import math
import statistics

from autopilot.contracts import Axis, Stage
from autopilot.profile import Interval, Measurement, Profile
from autopilot.stats import t_quantile

PEAK = Axis("peak_memory_mb", False, Stage.SMOKE, "high-water mark of the serving process's resident memory")
MODEL = Axis("model_memory_mb", False, Stage.SMOKE, "peak_memory_mb less the same process with no model")
RESIDENT = Axis("resident_memory_mb", False, Stage.SMOKE, "the serving process's resident memory after some requests")
GPU = Axis("gpu_memory_mb", False, Stage.SMOKE, "memory of the serving process on the GPU")
_MB = 1e6
# Two starts of one model differ. The standard deviation over 5 to 12 starts each of seven model and thread settings
# (65 to 465 MB) was 0.02 to 0.09 MB, the furthest start 0.15 MB from its mean (Linux, ONNX Runtime 1.32): a single
# start stands for the next one within this many MB, with room for a less tidy allocator, or within a share of its size.
ONE_START_MB = 0.5
ONE_START_SHARE = 0.005
# The fewest starts that say something of their own spread.
MIN_STARTS = 3


class MemoryMeter:
    """Reads the kernel's figures for the serving process, from its start to its last request."""

    name = "memory"
    axes: tuple[Axis, ...] = (PEAK, MODEL, RESIDENT, GPU)

    def axis(self, name: str) -> Axis | None:
        return next((a for a in self.axes if a.name == name), None)

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        if axis == GPU.name:
            return _gpu(profile)
        if profile.peak_memory_bytes is None:
            ended = profile.load_s is None
            reason = "the trial ended before that" if ended else "the system tells no high-water mark of a process"
            return Measurement.missing(axis, f"memory was not measured: {reason}")
        if axis == RESIDENT.name:
            return _resident(profile)
        return _model(profile) if axis == MODEL.name else _peak(profile)


def _gpu(profile: Profile) -> Measurement:
    if profile.gpu_memory_bytes is None:
        reason = profile.gpu_memory_reason or "no GPU memory was read: the variant did not run on a GPU"
        return Measurement.missing(GPU.name, reason)
    return Measurement.exact(GPU.name, profile.gpu_memory_bytes / _MB, "NVML, this process alone, after some requests")


def _next_start_mb(profile: Profile) -> tuple[Interval, int]:
    """Where the high-water mark of a further start lies, and from how many starts that is known.

    A limit asks about the next process that is started, not about a mean: with ``MIN_STARTS`` or more this is
    Student's prediction interval, with fewer the spread that other models showed.
    """
    assert profile.peak_memory_bytes is not None
    starts = [b / _MB for b in profile.peak_memory_starts_bytes] or [profile.peak_memory_bytes / _MB]
    n, value = len(starts), statistics.fmean(starts)
    half = max(ONE_START_MB, ONE_START_SHARE * value)
    if n >= MIN_STARTS:
        half = t_quantile(0.975, n - 1) * statistics.stdev(starts) * math.sqrt(1 + 1 / n)
    return Interval(value, max(0.0, value - half), value + half), n


def _starts_text(n: int) -> str:
    if n >= MIN_STARTS:
        return f"{n} fresh processes, bounds for a further one"
    few = "one fresh process" if n == 1 else f"{n} fresh processes"
    return f"{few}; bounds are the spread that starts of other models showed"


def _peak(profile: Profile) -> Measurement:
    found, n = _next_start_mb(profile)
    how = f"high-water mark of the serving process, {_starts_text(n)}"
    if profile.empty_memory_bytes is not None:
        how += f"; {profile.empty_memory_bytes / _MB:.1f} MB of it without a model"
    return Measurement(PEAK.name, found.value, found.low, found.high, n, how)


def _model(profile: Profile) -> Measurement:
    if profile.empty_memory_bytes is None:
        return Measurement.missing(MODEL.name, "the process with no model was not measured")
    found, n = _next_start_mb(profile)
    empty = profile.empty_memory_bytes / _MB
    # Both are starts of their own, so that both vary: MOVER's square root of the sum of squares.
    spread = max(ONE_START_MB, ONE_START_SHARE * empty)
    down, up = math.hypot(found.value - found.low, spread), math.hypot(found.high - found.value, spread)
    value = found.value - empty
    how = f"high-water mark of the serving process less {empty:.1f} MB without a model, {_starts_text(n)}"
    return Measurement(MODEL.name, value, value - down, value + up, n, how)


def _resident(profile: Profile) -> Measurement:
    if profile.resident_memory_bytes is None:
        return Measurement.missing(RESIDENT.name, "the system doesn't tell a process's resident memory")
    value = profile.resident_memory_bytes / _MB
    half = max(ONE_START_MB, ONE_START_SHARE * value)
    how = "resident memory of the serving process after some requests, one fresh process"
    return Measurement(RESIDENT.name, value, max(0.0, value - half), value + half, 1, how)


METER = MemoryMeter()
