"""Operators: what each kind of node cost, from the runtime's own profiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """What all nodes of one operator type cost that ran on one provider in one data type.

    ``provider`` is the runtime's name of it. ``dtype`` is the type of the first input in numpy's words,
    ``weights`` that of 8-bit (or narrower) weights where it is another; empty where it isn't.
    ``count``: nodes run a request (a node in a loop counts once a turn). ``seconds``: mean a request.
    """

    operator: str
    provider: str
    dtype: str
    count: float
    seconds: float
    weights: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "provider": self.provider,
            "dtype": self.dtype,
            "weights": self.weights,
            "count": self.count,
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> OperatorCost:
        return cls(
            operator=str(value["operator"]),
            provider=str(value["provider"]),
            dtype=str(value["dtype"]),
            count=float(value["count"]),
            seconds=float(value["seconds"]),
            weights=str(value.get("weights", "")),
        )


@dataclass(frozen=True, slots=True)
class OperatorTable:
    """Costs by operator, the dearest first, from a pass of its own with the profiler on.

    ``requests`` were profiled, warm-up excluded, of ``samples_per_request`` samples each.
    ``latency_s``: mean seconds of the model in one request without the profiler (hooks left out);
    None where it isn't known.
    """

    rows: tuple[OperatorCost, ...]
    requests: int
    samples_per_request: int = 1
    latency_s: float | None = None

    @property
    def total_s(self) -> float:
        """Seconds of all operators in one request."""
        return sum(row.seconds for row in self.rows)

    @property
    def covered(self) -> float | None:
        """The operators' time over the latency without the profiler; None where that isn't known.

        The rest is the runtime's own work between nodes. Above 1 where the profiler slowed the nodes
        themselves, or where several threads run nodes at a time.
        """
        return self.total_s / self.latency_s if self.latency_s else None

    def share(self, row: OperatorCost) -> float:
        """Of the operators' time, 0..1; shares of all rows sum to 1."""
        total = self.total_s
        return row.seconds / total if total else 0.0

    def by_provider(self) -> dict[str, float]:
        """Shares of the operators' time by provider; empty where no time was seen at all."""
        total = self.total_s
        seconds: dict[str, float] = {}
        for row in self.rows:
            seconds[row.provider] = seconds.get(row.provider, 0.0) + row.seconds
        return {provider: s / total for provider, s in seconds.items()} if total else {}

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "samples_per_request": self.samples_per_request,
            "seconds": self.total_s,
            "latency_s": self.latency_s,
            "covered": self.covered,
            "by_provider": self.by_provider(),
            "rows": [row.to_json() | {"share": self.share(row)} for row in self.rows],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> OperatorTable:
        latency_s = value.get("latency_s")
        return cls(
            rows=tuple(OperatorCost.from_json(row) for row in value["rows"]),
            requests=int(value["requests"]),
            samples_per_request=int(value.get("samples_per_request", 1)),
            latency_s=None if latency_s is None else float(latency_s),
        )
