"""Time by operator, in a pass of its own: the runtime's profiler slows what it times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.bench.child import ChildLimits, run_child
from autopilot.bench.cores import server_cores
from autopilot.bench.live import REQUEST_BYTES
from autopilot.profile import OperatorTable
from autopilot.recipe import Deployment
from autopilot.temporary import temporary_folder

if TYPE_CHECKING:
    from autopilot.data import Split


def measure_operators(
    artifact: Path,
    deployment: Deployment,
    *,
    split: Split,
    limits: ChildLimits,
    latency_s: float | None = None,
) -> OperatorTable:
    """Costs by operator of ``artifact`` in its own deployment, from a fresh process with the profiler on.

    Args:
        artifact: the model file.
        deployment: how it is run; the process is pinned to ``deployment.threads`` cores.
        split: real samples; a prefix of it is served in turn, some warm-up requests not counted.
        limits: wall-clock and memory of the process.
        latency_s: mean seconds of the model in one request without the profiler, where they are known.

    Raises:
        Unsupported: the provider has no profiler, or its profile can't be read.
        VariantFailed: the model doesn't load or run, or the process died.
        DataError: a hook failed.
    """
    with temporary_folder("operators") as folder:
        request = {
            "artifact": str(artifact.absolute()),
            "deployment": deployment.to_json(),
            "split": str(split.folder.absolute()),
            "cores": server_cores(deployment.threads),
            "limit_bytes": REQUEST_BYTES,
            "folder": str(folder),
        }
        answer = run_child(
            "autopilot.bench.operator_child", request, limits, workdir=folder, threads=deployment.threads
        )
    return OperatorTable.from_json(answer | {"latency_s": latency_s})
