"""An ONNX Runtime session on a device: which nodes stay on the host on purpose, and what can be told of its time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from autopilot.errors import Unsupported
from autopilot.profile import HOST_SHAPES, OperatorCost, Placement
from autopilot.providers._ort import OrtSession
from autopilot.providers._ort_profile import NodeRun, costs_of, read_runs

CPU = "CPUExecutionProvider"
# How the costs call everything that ran on the device.
ON_DEVICE = "all on the device"
# ONNX Runtime puts what follows from a Shape on the host (GetCpuPreferredNodes in fallback_cpu_capability.cc): a few
# integers that the host needs to launch the next kernel. All of these have CUDA kernels for floats or move any type,
# so that on the host they can only have worked on such integers; any other operator there has no kernel on the device.
SHAPE_OPERATORS = frozenset((
    "Shape", "Size", "Gather", "Slice", "Concat", "Split", "Squeeze", "Unsqueeze", "Reshape", "Expand", "Tile",
    "Transpose", "Identity", "Cast", "ConstantOfShape", "Range", "Where", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "And", "Or", "Not", "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Sqrt", "Neg", "Abs", "Min", "Max",
    "Floor", "Ceil", "ReduceProd", "ReduceSum", "ReduceMin", "ReduceMax",
))  # fmt: skip


def name_of(provider: str, operator: str) -> str:
    """What placement calls the provider of a node: shapes on the host are no fallback.

    >>> name_of("CPUExecutionProvider", "Gather"), name_of("CPUExecutionProvider", "NonMaxSuppression")
    ('CPUExecutionProvider (shapes)', 'CPUExecutionProvider')
    """
    return HOST_SHAPES if provider == CPU and operator in SHAPE_OPERATORS else provider


class DeviceSession(OrtSession):
    """A session whose nodes run on a device, but for those that compute shapes."""

    def placement(self) -> Placement:
        """Nodes by execution provider, those that compute shapes on the host apart."""
        counts: Counter[str] = Counter()
        for part in self._session.get_provider_graph_assignment_info():
            counts.update(name_of(part.ep_name, node.op_type) for node in part.get_nodes())
        return Placement(dict(counts))

    def _costs(self, path: Path, requests: int) -> tuple[OperatorCost, ...]:
        runs, took_s = read_runs(path, requests)
        return device_costs(runs, took_s, requests)


def device_costs(runs: list[NodeRun], took_s: float, requests: int) -> tuple[OperatorCost, ...]:
    """Costs of nodes on the host one by one, and the rest of ``took_s`` as one row of the device's.

    ONNX Runtime's profiler times how long a node takes to *launch* on a device (CUPTI isn't part of its wheels), so
    that single nodes there can't be told; what isn't spent in nodes on the host is spent on the device, launches,
    copies and waiting included. ``took_s``: seconds of ``requests`` requests in all.

    Raises:
        Unsupported: nodes ran on several providers of the device, whose time can't be told apart.
    """
    devices = sorted({run.provider for run in runs if run.provider != CPU})
    if len(devices) > 1:
        raise Unsupported(f"the time on {' and '.join(devices)} can't be told apart: all of it passes on the device.")
    host = costs_of([run.on(name_of(run.provider, run.operator)) for run in runs if run.provider == CPU], requests)
    if not devices:
        return host
    rest_s = max(0.0, took_s / requests - sum(row.seconds for row in host))
    count = sum(run.provider == devices[0] for run in runs) / requests
    rows = (OperatorCost(ON_DEVICE, devices[0], "", count, rest_s), *host)
    return tuple(sorted(rows, key=lambda row: -row.seconds))
