"""An ONNX Runtime session on a device: which nodes stay on the host on purpose, and what can be told of its time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from autopilot.errors import Unsupported
from autopilot.profile import HOST, HOST_SHAPES, MOST_IN_SHAPES, SHAPE_OPERATORS, OperatorCost, Placement
from autopilot.providers._ort import OrtSession
from autopilot.providers._ort_profile import NodeRun, costs_of, read_runs

# How the costs call everything that ran on the device.
ON_DEVICE = "all on the device"


class DeviceSession(OrtSession):
    """A session whose nodes run on a device, but for those that compute shapes and those without a kernel there."""

    def placement(self) -> Placement:
        """Nodes by execution provider; which ones on the host compute shapes is for whoever reads the file."""
        counts: Counter[str] = Counter()
        host: list[tuple[str, str]] = []
        for part in self._session.get_provider_graph_assignment_info():
            nodes = part.get_nodes()
            counts[part.ep_name] += len(nodes)
            if part.ep_name == HOST:
                host.extend((node.name, node.op_type) for node in nodes)
        return Placement(dict(counts), tuple(host))

    def _costs(self, path: Path, requests: int) -> tuple[OperatorCost, ...]:
        runs, took_s = read_runs(path, requests)
        return device_costs(runs, took_s, requests)


def device_costs(runs: list[NodeRun], took_s: float, requests: int) -> tuple[OperatorCost, ...]:
    """Costs of nodes on the host one by one, and the rest of ``took_s`` as one row of the device's.

    ONNX Runtime's profiler times how long a node takes to *launch* on a device (CUPTI isn't part of its wheels), so
    that single nodes there can't be told; what isn't spent in nodes on the host is spent on the device, launches,
    copies and waiting included. Nodes that computed shapes are told apart. ``took_s``: seconds of ``requests``
    requests in all.

    Raises:
        Unsupported: nodes ran on several providers of the device, whose time can't be told apart.
    """
    devices = sorted({run.provider for run in runs if run.provider != HOST})
    if len(devices) > 1:
        raise Unsupported(f"the time on {' and '.join(devices)} can't be told apart: all of it passes on the device.")
    host = costs_of(
        [run.on(HOST_SHAPES if _of_shapes(run) else HOST) for run in runs if run.provider == HOST], requests
    )
    if not devices:
        return host
    rest_s = max(0.0, took_s / requests - sum(row.seconds for row in host))
    count = sum(run.provider == devices[0] for run in runs) / requests
    rows = (OperatorCost(ON_DEVICE, devices[0], "", count, rest_s), *host)
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def _of_shapes(run: NodeRun) -> bool:
    """Whether a node on the host worked on no more than a shape: the profile tells what it really read and wrote."""
    return run.operator in SHAPE_OPERATORS and run.elements <= MOST_IN_SHAPES
