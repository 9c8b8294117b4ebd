"""Is a variant what it claims to be: nodes by provider, kernels, products in integer kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes by provider, as the runtime reports them after loading."""

    nodes: Mapping[str, int] = field(default_factory=dict)

    def share(self, provider: str) -> float:
        """Share of nodes on ``provider`` (ONNX Runtime's name), 0..1; 0 when nothing is known."""
        total = sum(self.nodes.values())
        return self.nodes.get(provider, 0) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel that a runtime of its own (no ONNX Runtime) ran, as its counters name it.

    ``sources``: names of the artifact's nodes or of their outputs that went into it, as far as they are known.
    ``product``: a matrix product, convolution or recurrent layer. ``integer``: it multiplied integers;
    ``stored_integer``: it computed in float from weights that are stored as integers.
    """

    operator: str
    sources: tuple[str, ...]
    product: bool
    integer: bool
    stored_integer: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "sources": list(self.sources),
            "product": self.product,
            "integer": self.integer,
            "stored_integer": self.stored_integer,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Kernel:
        return cls(**{**value, "sources": tuple(value["sources"])})


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
