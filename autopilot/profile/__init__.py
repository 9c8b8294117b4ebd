"""Profile: what was read while one variant ran. Raw readings only; statistics are in ``stats``."""

from __future__ import annotations

from autopilot.profile.control import Control
from autopilot.profile.latency import LatencyReading
from autopilot.profile.measurement import Floats, Interval, Ints, Measurement
from autopilot.profile.placement import Int8Audit, Placement
from autopilot.profile.quality import QualityReading
from autopilot.profile.record import Profile
from autopilot.profile.traffic import RateReading, TrafficReading

__all__ = [
    "Control",
    "Floats",
    "Int8Audit",
    "Interval",
    "Ints",
    "LatencyReading",
    "Measurement",
    "Placement",
    "Profile",
    "QualityReading",
    "RateReading",
    "TrafficReading",
]
