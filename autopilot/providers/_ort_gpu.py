"""What ONNX Runtime's providers for NVIDIA devices share: why they can't run, and a session that is really on them.

Written against the documented interfaces; not yet run on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.domain import Choice, Domain
from autopilot.errors import Failure, VariantFailed
from autopilot.providers._ort import SESSION_PARAMETERS, OrtSession, open_session
from autopilot.providers._ort_bound import BoundSession

if TYPE_CHECKING:
    import onnxruntime

    from autopilot.target import Target

GPU_MEMORY = ("gpu_memory_mb", "peak_memory_mb", "model_memory_mb", "resident_memory_mb")
GPU_ENERGY = ("nvml", "rapl")
# Of what the CPU provider can be told, what still matters where nodes run on a device.
HOST_PARAMETERS: dict[str, Domain] = {"graph_optimization": SESSION_PARAMETERS["graph_optimization"]}
GRAPH = "graph"
IO = Choice(("plain", "bound", GRAPH))
NO_DEVICE = (
    "the driver lists no NVIDIA device (/proc/driver/nvidia/gpus); run on a machine that has one, "
    "with NVIDIA's driver: nvidia-smi shows it"
)


def why_not_on_gpu(target: Target) -> str | None:
    """What keeps ONNX Runtime off NVIDIA devices here, the first thing first, with the command that mends it."""
    if target.clash is not None:
        return target.clash
    if not target.gpus:
        return NO_DEVICE
    if "onnxruntime-gpu" not in target.versions:
        found = target.versions.get("onnxruntime")
        plain = f"; onnxruntime {found} has the CPU provider alone" if found else ""
        return (
            f"onnxruntime-gpu is not installed{plain}; run pip uninstall -y onnxruntime && "
            "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    if find_library("cudnn") is None and not _has("nvidia.cudnn"):
        return "cuDNN is not found; run pip install 'onnxruntime-gpu[cuda,cudnn]'"
    return None


def why_no_tensorrt(target: Target) -> str | None:
    """As ``why_not_on_gpu``, and TensorRT's own libraries."""
    reason = why_not_on_gpu(target)
    if reason is not None:
        return reason
    missing = [f"lib{name} 10" for name in ("nvinfer", "nvonnxparser") if find_library(name) is None]
    if missing and not _has("tensorrt_libs"):
        return (
            f"TensorRT's libraries are not found ({', '.join(missing)}); install TensorRT 10 for your CUDA version "
            "from developer.nvidia.com/tensorrt and put its lib folder on LD_LIBRARY_PATH: "
            "export LD_LIBRARY_PATH=/path/to/TensorRT/lib"
        )
    return None


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def open_on_device(
    artifact: Path,
    options: onnxruntime.SessionOptions,
    providers: Sequence[tuple[str, dict[str, Any]]],
    *,
    io: str,
    device_id: int,
) -> OrtSession:
    """A session on the first of ``providers``, what it can't take on the next ones and on the CPU.

    ONNX Runtime runs on the CPU where a provider can't be loaded, with a line in its log: that is refused here.

    Raises:
        VariantFailed: PROVIDER_MISSING, or what ``open_session`` raises.
    """
    import onnxruntime as ort

    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA and cuDNN from NVIDIA's wheels, where those are installed
    name = providers[0][0]
    if name not in ort.get_available_providers():
        message = f"onnxruntime {ort.__version__} has no {name}."
        raise VariantFailed(Failure.PROVIDER_MISSING, message, "`autopilot doctor` says what is missing.")
    loaded = open_session(artifact, options, [*providers, "CPUExecutionProvider"])
    session = loaded.inner
    if name not in session.get_providers():
        message = f"{name} could not be loaded; ONNX Runtime's log says why."
        raise VariantFailed(Failure.PROVIDER_MISSING, message, "`autopilot doctor` says what is missing.")
    return loaded if io == "plain" else BoundSession(session, "cuda", device_id, graphs=io == GRAPH)
