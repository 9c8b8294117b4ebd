"""Profile: what was read while one variant ran. Raw readings only; statistics are in ``stats``."""

from __future__ import annotations

from autopilot.profile.control import Control
from autopilot.profile.energy import EnergyReading
from autopilot.profile.latency import LatencyReading
from autopilot.profile.measurement import Floats, Interval, Ints, Measurement
from autopilot.profile.operators import OperatorCost, OperatorTable
from autopilot.profile.placement import (
    HOST,
    HOST_SHAPES,
    MOST_IN_SHAPES,
    SHAPE_OPERATORS,
    Int8Audit,
    Kernel,
    Placement,
)
from autopilot.profile.quality import QualityReading, RawScores, ScoreKind
from autopilot.profile.record import Profile
from autopilot.profile.stages import StageShare, StageShares
from autopilot.profile.traffic import RateReading, TrafficReading

__all__ = [
    "HOST",
    "HOST_SHAPES",
    "MOST_IN_SHAPES",
    "SHAPE_OPERATORS",
    "Control",
    "EnergyReading",
    "Floats",
    "Int8Audit",
    "Interval",
    "Ints",
    "Kernel",
    "LatencyReading",
    "Measurement",
    "OperatorCost",
    "OperatorTable",
    "Placement",
    "Profile",
    "QualityReading",
    "RateReading",
    "RawScores",
    "ScoreKind",
    "StageShare",
    "StageShares",
    "TrafficReading",
]
