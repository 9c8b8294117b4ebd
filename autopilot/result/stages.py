"""What a stage of the trials cost, and how many of them it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StageCost:
    """``runs`` trials went through the stage, for ``seconds`` of wall time in all; it ended ``killed`` of them.

    ``stage`` is the name that trials keep its wall time under. ``saved_s``: what builds and scores had once taken
    that came from a cache; prices count it in.
    """

    stage: str
    runs: int = 0
    seconds: float = 0.0
    killed: int = 0
    saved_s: float = 0.0

    @property
    def price_s(self) -> float | None:
        """Mean seconds of one run; None before the first."""
        return (self.seconds + self.saved_s) / self.runs if self.runs else None

    @property
    def kill_rate(self) -> float | None:
        """Share of the trials that ended here; None before the first."""
        return self.killed / self.runs if self.runs else None

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "trials": self.runs,
            "seconds": self.seconds,
            "saved_s": self.saved_s,
            "price_s": self.price_s,
            "killed": self.killed,
            "kill_rate": self.kill_rate,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StageCost:
        return cls(
            str(value["stage"]),
            int(value["trials"]),
            float(value["seconds"]),
            int(value["killed"]),
            float(value["saved_s"]),
        )
