"""Control: the A/A reading of a study, one model against itself in fresh processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Control:
    """How far processes of one and the same model differ on this machine.

    ``spread``: standard deviation of the logarithm of the ratio of two processes' medians (0.004 means
    0.4%), from ``pairs`` pairs of fresh processes, so with as many degrees of freedom (a mean of zero is
    known). ``p50_percent``, ``p99_percent``: the largest difference seen at these percentiles.
    """

    spread: float
    pairs: int
    p50_percent: float
    p99_percent: float

    def to_json(self) -> dict[str, Any]:
        return {
            "spread": self.spread,
            "pairs": self.pairs,
            "p50_percent": self.p50_percent,
            "p99_percent": self.p99_percent,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Control:
        return cls(
            float(value["spread"]), int(value["pairs"]), float(value["p50_percent"]), float(value["p99_percent"])
        )
