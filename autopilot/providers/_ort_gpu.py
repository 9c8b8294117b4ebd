"""What ONNX Runtime's providers for NVIDIA devices share: why they can't run, and a session that is really on them.

Written against the documented interfaces; not yet run on a GPU.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.domain import Choice, Domain
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.providers import _cuda_libraries as libraries
from autopilot.providers._ort import SESSION_PARAMETERS, open_session
from autopilot.providers._ort_bound import BoundSession, GraphSession
from autopilot.providers._ort_device import DeviceSession
from autopilot.recipe import Rival, Step, params_of

if TYPE_CHECKING:
    import onnxruntime

    from autopilot.target import Target

GPU_MEMORY = ("gpu_memory_mb", "peak_memory_mb", "model_memory_mb", "resident_memory_mb")
GPU_ENERGY = ("nvml", "rapl")
# Of what the CPU provider can be told, what still matters where nodes run on a device.
HOST_PARAMETERS: dict[str, Domain] = {"graph_optimization": SESSION_PARAMETERS["graph_optimization"]}
GRAPH = "graph"
IO = Choice(("plain", "bound", GRAPH))
# Float32 products and convolutions with 10 bits of precision; NVIDIA's libraries do so unless they are told otherwise.
TF32 = Choice((True, False))
USUAL = {"tf32": True}
# The model as given computes in its own types, the same ones with every provider of a device.
EXACT = {"tf32": False}
# What people run who do nothing at all, and then float16: a gain over exact float32 would be none.
IN_TF32 = Rival("tf32", options=params_of(USUAL))
HALF = Rival("float16", steps=(Step("float16", params_of({"scope": "compute"})),), options=params_of(USUAL))
# At 0 NVIDIA's libraries keep to float32, whatever a program sets; they read it once, when they start. TensorRT says
# "NVIDIA_TF32_OVERRIDE=0 but BuilderFlag::kTF32 is set. Disabling TF32." (ONNX Runtime's issues 28177, 26029);
# the same words stand in libtensorrt_rtx.so.1.7.1.
TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"
# By the wheels' metadata on the package index: 1.26.0 asks for nvidia-…-cu12, 1.27.0 for cu13.
LAST_FOR_CUDA_12 = "1.26.0"
NO_DRIVER = (
    f"the driver's {libraries.DRIVER} is not found; in a container, start it with NVIDIA's runtime (docker run "
    "--gpus all) and the capability compute"
)
NO_DEVICE = (
    "no NVIDIA device is seen (/proc/driver/nvidia/gpus, /dev/nvidia*, NVML); run on a machine that has one, "
    "with NVIDIA's driver: nvidia-smi shows it"
)


def forbid_tf32() -> None:
    """Keep NVIDIA's libraries from TensorFloat-32 for as long as this process lives; to be called before they load.

    For TensorRT, which has TensorFloat-32 on by default, and for which ONNX Runtime has no option to turn it off.
    """
    os.environ[TF32_VARIABLE] = "0"


def why_not_on_gpu(target: Target) -> str | None:
    """What keeps ONNX Runtime off NVIDIA devices here, the first thing first, with the command that mends it."""
    if target.clash is not None:
        return target.clash
    if not target.gpus:
        return NO_DEVICE
    if not libraries.is_here(libraries.DRIVER):
        return NO_DRIVER
    if "onnxruntime-gpu" not in target.versions:
        found = target.versions.get("onnxruntime")
        plain = f"; onnxruntime {found} has the CPU provider alone" if found else ""
        return (
            f"onnxruntime-gpu is not installed{plain}; run pip uninstall -y onnxruntime && "
            "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    return _why_no_libraries(target.versions["onnxruntime-gpu"])


def _why_no_libraries(version: str) -> str | None:
    """Which of CUDA's libraries onnxruntime-gpu ``version`` will miss, and whether another CUDA's are there instead."""
    mend = "run pip install 'onnxruntime-gpu[cuda,cudnn]'"
    cuda = libraries.built_for()
    missing = [name for name in (libraries.needed(cuda) if cuda else ()) if not libraries.is_here(name)]
    if missing:
        others = libraries.others(missing[0])
        instead = f" ({', '.join(others)} is here, of another CUDA)" if others else ""
        if any(name.endswith(".so.12") for name in others):
            mend += f", or take onnxruntime-gpu {LAST_FOR_CUDA_12}, the last one for CUDA 12"
        return f"onnxruntime-gpu {version} is built for CUDA {cuda}; {', '.join(missing)} is not found{instead}; {mend}"
    if not libraries.is_here(libraries.CUDNN):
        others = libraries.others(libraries.CUDNN)
        return f"cuDNN 9 ({libraries.CUDNN}) is not found{f'; {others[0]} is here' if others else ''}; {mend}"
    return None


def why_no_tensorrt(target: Target) -> str | None:
    """As ``why_not_on_gpu``, and TensorRT's own libraries."""
    reason = why_not_on_gpu(target)
    if reason is not None:
        return reason
    missing = [name for name in libraries.TENSORRT if not libraries.is_here(name)]
    if missing:
        return (
            f"TensorRT's libraries are not found ({', '.join(missing)}); install TensorRT 10 for your CUDA version "
            "from developer.nvidia.com/tensorrt and put its lib folder on LD_LIBRARY_PATH: "
            "export LD_LIBRARY_PATH=/path/to/TensorRT/lib"
        )
    return None


def open_on_device(
    artifact: Path,
    options: onnxruntime.SessionOptions,
    providers: Sequence[tuple[str, dict[str, Any]]],
) -> onnxruntime.InferenceSession:
    """A session on the first of ``providers``, what it can't take on the next ones and on the CPU.

    ONNX Runtime runs on the CPU where a provider can't be loaded, with a line in its log: that is refused here.

    Raises:
        VariantFailed: PROVIDER_MISSING, OOM, or what ``open_session`` raises.
        Unsupported: the model can't be captured as a graph, or has a node without a kernel.
    """
    import onnxruntime as ort

    libraries.load(libraries.built_for() or 0)
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    name, hint = providers[0][0], "`autopilot doctor` says what is missing."
    if name not in ort.get_available_providers():
        raise VariantFailed(Failure.PROVIDER_MISSING, f"onnxruntime {ort.__version__} has no {name}.", hint)
    try:
        session = open_session(artifact, options, [*providers, "CPUExecutionProvider"], fallback=False).inner
    except VariantFailed as exc:
        if "graph capture" in exc.message:  # "This session cannot use the graph capture feature as requested …"
            raise Unsupported(exc.message, "Take io bound or plain: some of its nodes are not the device's.") from exc
        told = exc.failure is not Failure.PROVIDER_MISSING or " failure " in exc.message  # "CUDA failure 100: …"
        if not told and (why := _why_not_loaded(name)):
            raise VariantFailed(Failure.PROVIDER_MISSING, f"{name} could not be loaded{why}.", hint) from exc
        raise
    if name not in session.get_providers():
        raise VariantFailed(Failure.PROVIDER_MISSING, f"{name} could not be loaded{_why_not_loaded(name)}.", hint)
    return session


def _why_not_loaded(provider: str) -> str:
    """What the system's loader says of the provider's library; empty where it says nothing."""
    from onnxruntime import capi

    folder, short = Path(capi.__file__).parent, provider.removesuffix("ExecutionProvider").lower()
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{short}.so"))
    except OSError as exc:
        return f": {exc}"
    return ""


def served(session: onnxruntime.InferenceSession, io: str, device_id: int) -> DeviceSession:
    """``session`` with arrays handed over in the way called ``io``.

    Raises:
        Unsupported: a graph of a model that reads an input on the host.
    """
    if io == "plain":
        return DeviceSession(session)
    return GraphSession(session, "cuda", device_id) if io == GRAPH else BoundSession(session, "cuda", device_id)


def io_while(profiling: bool, io: str) -> str:
    """How arrays are handed over: a graph that is replayed shows the profiler no node, so that it is left out there."""
    return "bound" if profiling and io == GRAPH else io
