"""size_mb: the artifact's files on disk, external data included. 1 MB = 1,000,000 bytes."""

from __future__ import annotations

from autopilot.contracts import Axis, Stage
from autopilot.profile import Measurement, Profile

SIZE = Axis("size_mb", False, Stage.BUILD, "size of the artifact's files on disk")


class SizeMeter:
    """Reads ``Profile.size_bytes``: exact, no sampling noise."""

    name = "size"
    axes: tuple[Axis, ...] = (SIZE,)

    def axis(self, name: str) -> Axis | None:
        return SIZE if name == SIZE.name else None

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        if profile.size_bytes is None:
            return Measurement.missing(axis, "nothing was built")
        return Measurement.exact(axis, profile.size_bytes / 1e6, "files on disk")


METER = SizeMeter()
