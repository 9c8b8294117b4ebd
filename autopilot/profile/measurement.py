"""Interval and Measurement: figures with their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Interval:
    """``value`` with its 95% confidence bounds."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Measurement:
    """Value + interval + sample count + how it was taken, for one axis of one variant.

    ``value`` is None where the axis can't be measured; ``reason`` then says why.
    ``ratio`` is value / baseline from interleaved readings, where there are any: relative limits
    are judged on it.
    """

    axis: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    how: str = ""
    ratio: Interval | None = None
    reason: str = ""

    @classmethod
    def exact(cls, axis: str, value: float, how: str, ratio: float | None = None) -> Measurement:
        """A figure without sampling noise (a file size)."""
        r = Interval(ratio, ratio, ratio) if ratio is not None else None
        return cls(axis, value, value, value, 1, how, r)

    @classmethod
    def missing(cls, axis: str, reason: str) -> Measurement:
        """An axis this machine or this run can't measure; never a made-up number."""
        return cls(axis, None, reason=reason)

    def to_json(self) -> dict[str, Any]:
        if self.value is None:
            return {"value": None, "reason": self.reason}
        out: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "how": self.how}
        if self.ratio is not None:
            out["ratio"] = self.ratio.to_json()
        return out

    @classmethod
    def from_json(cls, axis: str, value: Mapping[str, Any]) -> Measurement:
        if value["value"] is None:
            return cls.missing(axis, str(value.get("reason", "")))
        r = value.get("ratio")
        ratio = Interval(r["value"], r["low"], r["high"]) if r else None
        return cls(axis, value["value"], value["low"], value["high"], value["n"], value.get("how", ""), ratio)
