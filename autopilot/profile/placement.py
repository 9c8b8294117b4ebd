"""Is a variant what it claims to be: nodes by provider, kernels, products in integer kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What ONNX Runtime calls the host.
HOST = "CPUExecutionProvider"
# Where placement tells of nodes that a provider of a device leaves there on purpose: they compute shapes.
HOST_SHAPES = "CPUExecutionProvider (shapes)"
# Elements of what ONNX Runtime takes for one at most (kSmallInitializerThreshold in fallback_cpu_capability.cc).
MOST_IN_SHAPES = 100
# What is computed of shapes, without making much of little. All have CUDA kernels for floats or move any type.
SHAPE_OPERATORS = frozenset((
    "Shape", "Size", "Gather", "GatherElements", "GatherND", "Slice", "Concat", "Split", "Squeeze", "Unsqueeze",
    "Reshape", "Flatten", "Expand", "Tile", "Transpose", "Identity", "Cast", "ScatterElements", "ScatterND", "Where",
    "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "Add", "Sub", "Mul", "Div",
    "Mod", "Pow", "Sqrt", "Neg", "Abs", "Sign", "Min", "Max", "Clip", "Floor", "Ceil", "Round", "CumSum", "ReduceProd",
    "ReduceSum", "ReduceMin", "ReduceMax", "ReduceMean",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes by provider, as the runtime reports them after loading.

    ``host``: name and operator of each node on the host of a session on a device, where nobody has said yet which of
    them compute shapes: ``model.shapes_apart`` does, from the file.
    """

    nodes: Mapping[str, int] = field(default_factory=dict)
    host: tuple[tuple[str, str], ...] = ()

    @property
    def working(self) -> Mapping[str, int]:
        """The nodes but for those that compute shapes on the host for a device: these are no fallback.

        >>> Placement({"CUDAExecutionProvider": 40, HOST_SHAPES: 3}).working
        {'CUDAExecutionProvider': 40}
        """
        return {name: count for name, count in self.nodes.items() if name != HOST_SHAPES}

    def share(self, provider: str) -> float:
        """Share of the working nodes on ``provider`` (ONNX Runtime's name), 0..1; 0 when nothing is known."""
        working = self.working
        total = sum(working.values())
        return working.get(provider, 0) / total if total else 0.0


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
