"""Is a variant what it claims to be: nodes by provider, products in integer kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
