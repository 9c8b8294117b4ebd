"""Profile: everything read about one variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autopilot.profile.control import Control
from autopilot.profile.energy import EnergyReading
from autopilot.profile.latency import LatencyReading
from autopilot.profile.measurement import Floats
from autopilot.profile.operators import OperatorTable
from autopilot.profile.placement import Int8Audit, Placement
from autopilot.profile.quality import QualityReading
from autopilot.profile.stages import StageShares
from autopilot.profile.traffic import TrafficReading


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything read about one variant; None where the pass was not run.

    ``peak_memory_starts_bytes`` holds the high-water mark of each fresh process, ``peak_memory_bytes`` the
    highest; ``empty_memory_bytes`` is that of the same process with no model. The two reasons say why there
    is no energy or GPU memory.
    ``control`` is the study's A/A reading; ``drift`` the baseline's median beside this variant over its
    reference in this study, less 1 (0.05: the machine was 5% slower than when the study began).
    """

    variant: str
    size_bytes: int | None = None
    load_s: Floats | None = None
    peak_memory_bytes: int | None = None
    peak_memory_starts_bytes: tuple[int, ...] = ()
    resident_memory_bytes: int | None = None
    empty_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    gpu_memory_reason: str = ""
    latency: LatencyReading | None = None
    baseline_latency: LatencyReading | None = None
    energy: EnergyReading | None = None
    energy_reason: str = ""
    quality: QualityReading | None = None
    placement: Placement | None = None
    int8: Int8Audit | None = None
    stages: StageShares | None = None
    operators: OperatorTable | None = None
    price_per_hour: float | None = None
    control: Control | None = None
    drift: float = 0.0
    warnings: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def traffic(self) -> TrafficReading | None:
        """What is known of scheduled requests; None in other traffic than the server's."""
        return self.latency.traffic if self.latency is not None else None
