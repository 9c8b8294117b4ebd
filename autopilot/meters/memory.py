"""peak_memory_mb of the serving process on the host, gpu_memory_mb on the device. 1 MB = 1,000,000 bytes."""

from __future__ import annotations

from autopilot.contracts import Axis, Stage
from autopilot.profile import Measurement, Profile

PEAK = Axis("peak_memory_mb", False, Stage.SMOKE, "high-water mark of the serving process's resident memory")
GPU = Axis("gpu_memory_mb", False, Stage.SMOKE, "memory of the serving process on the GPU")
_MB = 1e6


class MemoryMeter:
    """Reads the kernel's high-water mark, from process start to its last request; whole, not less anything."""

    name = "memory"
    axes: tuple[Axis, ...] = (PEAK, GPU)

    def axis(self, name: str) -> Axis | None:
        return next((a for a in self.axes if a.name == name), None)

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        if axis == GPU.name:
            if profile.gpu_memory_bytes is None:
                return Measurement.missing(axis, "no GPU memory was read: the variant did not run on a GPU")
            return Measurement.exact(axis, profile.gpu_memory_bytes / _MB, "NVML, per process")
        if profile.peak_memory_bytes is None:
            return Measurement.missing(axis, "memory was not measured: the trial ended before that")
        how = "high-water mark of the serving process"
        if profile.empty_memory_bytes is not None:
            how += f"; {profile.empty_memory_bytes / _MB:.1f} MB of it without a model"
        return Measurement.exact(axis, profile.peak_memory_bytes / _MB, how)


METER = MemoryMeter()
