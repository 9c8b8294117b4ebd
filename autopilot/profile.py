"""Profile: what was read while one variant ran. Raw readings only; statistics are in ``stats``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class LatencyReading:
    """Timed requests, warm-up excluded.

    latency_s: float64, shape (n_requests,), seconds, host arrays in to host arrays out.
    block: int32, shape (n_requests,), index of the block each request ran in; block k of the
        candidate and block k of the baseline ran next to each other.
    block_wall_s, block_cpu_s: float64, shape (n_blocks,), wall and processor seconds of a block.
    samples_per_request: the batch size of one request.
    """

    latency_s: Floats
    block: Ints
    block_wall_s: Floats
    block_cpu_s: Floats
    samples_per_request: int = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes by provider, as the runtime reports them after loading."""

    nodes: Mapping[str, int] = field(default_factory=dict)

    def share(self, provider: str) -> float:
        """Share of nodes on ``provider`` (ONNX Runtime's name), 0..1; 0 when nothing is known."""
        total = sum(self.nodes.values())
        return self.nodes.get(provider, 0) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Int8Audit:
    """What of an artifact that claims int8 really runs in int8.

    ``claimed`` and ``executed`` count matrix-multiply-like nodes (Conv, MatMul, Gemm …);
    ``mac_share`` is the share of multiply-accumulates in integer kernels, None when shapes are unknown.
    """

    claimed: int
    executed: int
    total: int
    mac_share: float | None = None

    @property
    def is_fake(self) -> bool:
        """True when fewer than half of the nodes claimed to be int8 run so."""
        return self.claimed > 0 and self.executed < 0.5 * self.claimed


@dataclass(frozen=True, slots=True)
class QualityReading:
    """Scores on one split, candidate and baseline on the same samples.

    ``drop`` is the loss in the metric's bad direction (positive = worse), with a paired interval.
    """

    metric: str
    split: str
    n: int
    score: Interval
    baseline: float
    drop: Interval
    how: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything read about one variant; None where the pass was not run."""

    variant: str
    size_bytes: int | None = None
    load_s: Floats | None = None
    peak_memory_bytes: int | None = None
    empty_memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    latency: LatencyReading | None = None
    baseline_latency: LatencyReading | None = None
    energy_mj: Interval | None = None
    energy_reason: str = ""
    quality: QualityReading | None = None
    placement: Placement | None = None
    int8: Int8Audit | None = None
    price_per_hour: float | None = None
    warnings: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
