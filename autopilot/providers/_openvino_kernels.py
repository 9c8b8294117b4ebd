"""What OpenVINO's counters say: kernels and their costs. Values in, values out; no runtime needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from autopilot.profile import Kernel, OperatorCost

# How the kinds of products begin in OpenVINO 2026 ("FullyConnectedQuantizedLegacy", "FullyConnectedCompressed").
_PRODUCTS = ("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul", "LSTM", "GRU", "RNN")
_COMPRESSED = "Compressed"
# A kernel's name ends in the type of its first input; "I8" is what OpenVINO writes for unsigned bytes.
_TYPES = {
    "I8": "uint8", "u8": "uint8", "i8": "int8", "f32": "float32", "bf16": "bfloat16", "f16": "float16",
    "i32": "int32", "i64": "int64", "boolean": "bool",
}  # fmt: skip
_INTEGER = frozenset({"uint8", "int8"})
# As OpenVINO spells the types of constants.
_SMALL_INTEGERS = frozenset({"i8", "u8", "i4", "u4"})
_NOT_RUN = frozenset({"Input", "Output", "Const", "Parameter", "Result", "Constant"})


@dataclass(frozen=True, slots=True)
class KernelRun:
    """One line of the counters; ``seconds`` by the wall clock."""

    name: str
    operator: str
    kernel: str
    executed: bool
    seconds: float

    @classmethod
    def of(cls, info: Any) -> KernelRun:
        """From openvino.ProfilingInfo."""
        executed = str(info.status).endswith("EXECUTED")
        return cls(info.node_name, info.node_type, info.exec_type, executed, info.real_time.total_seconds())

    @property
    def dtype(self) -> str:
        """The type of the kernel's first input, in numpy's words; empty where its name tells none."""
        return _TYPES.get(self.kernel.rpartition("_")[2], "")


def kernel_of(run: KernelRun, sources: tuple[str, ...]) -> Kernel:
    """``run`` as the int8 audit takes it; ``sources`` as ``sources_of`` gives them."""
    product = run.operator.startswith(_PRODUCTS)
    integer = product and run.dtype in _INTEGER
    stored = product and not integer and _COMPRESSED in run.operator
    return Kernel(run.operator, sources, product, integer, stored)


def sources_of(runtime_model: Any) -> dict[str, tuple[str, ...]]:
    """Node of the runtime model -> names of the artifact's nodes and tensors that went into it.

    OpenVINO adds to a name what it made of it ("conv1/WithoutBiases"); both are told, the whole and the beginning.
    """
    found: dict[str, tuple[str, ...]] = {}
    for node in runtime_model.get_ordered_ops():
        told = _told(node, "originalLayersNames")
        names = [part for part in (told or node.get_friendly_name()).split(",") if part]
        found[node.get_friendly_name()] = tuple(dict.fromkeys([*names, *(name.partition("/")[0] for name in names)]))
    return found


def is_quantized(model: Any) -> bool:
    """Whether a model as read (not as compiled) rounds to integers, or holds weights of 8 bits or fewer."""
    return any(
        node.get_type_name() == "FakeQuantize"
        or (node.get_type_name() == "Constant" and node.get_output_element_type(0).get_type_name() in _SMALL_INTEGERS)
        for node in model.get_ordered_ops()
    )


def node_count(model: Any) -> int:
    """Nodes of a model, or of a runtime model, that compute something."""
    kinds = (_told(node, "layerType") or node.get_type_name() for node in model.get_ordered_ops())
    return sum(kind not in _NOT_RUN for kind in kinds)


def _told(node: Any, key: str) -> str:
    """An entry of a node's runtime information, empty where there is none."""
    info = node.get_rt_info()
    if key not in info:
        return ""
    value = info[key]
    return str(getattr(value, "value", value))


def costs_of(runs: Sequence[Iterable[KernelRun]], provider: str) -> tuple[OperatorCost, ...]:
    """Means by operator and type over several requests, the dearest first."""
    counts: dict[tuple[str, str], int] = {}
    seconds: dict[tuple[str, str], float] = {}
    for run in (run for request in runs for run in request if run.executed):
        kind = run.operator, run.dtype
        counts[kind] = counts.get(kind, 0) + 1
        seconds[kind] = seconds.get(kind, 0.0) + run.seconds
    rows = [OperatorCost(o, provider, t, counts[o, t] / len(runs), seconds[o, t] / len(runs)) for o, t in counts]
    return tuple(sorted(rows, key=lambda row: (-row.seconds, row.operator, row.dtype)))
