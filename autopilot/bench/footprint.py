"""The serving child's own memory: what the kernel accounts to it, and the process that it is compared with."""

from __future__ import annotations

import base64
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autopilot.errors import VariantFailed

if TYPE_CHECKING:
    from autopilot.contracts import Provider
    from autopilot.recipe import Deployment

# x (n, m) -> Identity -> y (n, m), opset 17, base64.
_IDLE_MODEL = "CAg6QwoQCgF4EgF5IghJZGVudGl0eRIBZ1oVCgF4EhAKDggBEgoKAxIBbgoDEgFtYhUKAXkSEAoOCAESCgoDEgFuCgMSAW1CBAoAEBE="


def memory() -> dict[str, int]:
    """This process's high-water mark since its start and what is resident now, in bytes; each where the system tells.

    On Linux only ``VmHWM`` will do: ``ru_maxrss`` outlives exec there, so that a child starts with the peak of
    the process that started it, which is larger than most models.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return _of_status(status)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_bytes": int(peak) if sys.platform == "darwin" else int(peak) * 1024}


def _of_status(path: Path) -> dict[str, int]:
    names = {"VmHWM:": "peak_memory_bytes", "VmRSS:": "resident_memory_bytes"}
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {names[words[0]]: int(words[1]) * 1024 for words in lines if words and words[0] in names}


def open_idle(provider: Provider, deployment: Deployment) -> None:
    """Bring the runtime up as serving does, with a model of one Identity node and no weights.

    A first session touches some 10 MB of ONNX Runtime 1.32's library, whatever the model: without it they
    would count as the model's. A provider that takes no such model leaves the process as it is.
    """
    path = Path("idle.onnx").absolute()  # the working directory is this process's own
    path.write_bytes(base64.b64decode(_IDLE_MODEL))
    with contextlib.suppress(VariantFailed):
        provider.open(path, deployment).run({"x": np.zeros((1, 1), np.float32)})
