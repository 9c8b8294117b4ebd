"""NVIDIA's TensorRT for RTX, as a plug-in of plain ONNX Runtime. Not yet run on a GPU.

Option names as in tensorrt_rtx_provider_options.h of the wheel onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0. Its
library needs the driver's libcuda.so.1 even to be registered, so that nothing of it loads without a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.contracts import ProviderFacts
from autopilot.domain import Choice, Domain, Scalar
from autopilot.errors import Failure, VariantFailed
from autopilot.providers import tensorrt
from autopilot.providers._ort import OrtSession, open_session, ort_errors, session_options, translate, with_defaults
from autopilot.providers._ort_device import DeviceSession
from autopilot.providers._ort_gpu import EXACT, GPU_ENERGY, GPU_MEMORY, HALF, IN_TF32, NO_DEVICE, TF32, forbid_tf32
from autopilot.recipe import Deployment, digest, params_of

if TYPE_CHECKING:
    from autopilot.target import Target

EXECUTION_PROVIDER = "NvTensorRTRTXExecutionProvider"
MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
INSTALL = "pip install onnxruntime-ep-nv-tensorrt-rtx"
# What products are computed in is the file's own type, since the engine is strongly typed, but for TensorFloat-32.
PARAMETERS: Mapping[str, Domain] = {"cuda_graph": Choice((False, True)), "tf32": TF32}


def provider_options(chosen: Mapping[str, Scalar], cache: Path, profiles: Mapping[str, str]) -> dict[str, str]:
    """The plug-in's names and values; ``profiles`` as ``tensorrt.shape_profiles`` gives them."""
    return {
        "enable_cuda_graph": "1" if chosen["cuda_graph"] else "0",
        "nv_runtime_cache_path": str(cache),
        **{name.replace("trt_", "nv_", 1): shapes for name, shapes in profiles.items()},
    }


@dataclass(frozen=True, slots=True)
class TensorrtRtxProvider:
    """Runs on an RTX device (Ampere or later) where the plug-in is installed beside plain onnxruntime."""

    name: str = "tensorrt_rtx"
    execution_provider: str = EXECUTION_PROVIDER
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(PARAMETERS))
    thread_choices: bool = False
    facts: ProviderFacts = field(
        default_factory=lambda: ProviderFacts(
            precisions=("float32", "float16", "bfloat16", "int8"),
            memory_axes=GPU_MEMORY,
            energy_counters=GPU_ENERGY,
            numerics=("tf32",),
            per_shape=True,
            libraries=("onnxruntime", "onnxruntime-ep-nv-tensorrt-rtx"),
            hardware=("gpus", "gpu_driver"),
            exact=params_of(EXACT),
            rivals=(IN_TF32, HALF),
            unaudited="a TensorRT engine shows ONNX Runtime none of its kernels",
        )
    )

    def usable(self, target: Target) -> str | None:
        """None, or which of device, plain onnxruntime and plug-in is missing and how to get it."""
        if not target.gpus:
            return f"{NO_DEVICE} (an RTX device, Ampere or later)"
        if "onnxruntime-gpu" in target.versions:
            return (
                "the plug-in goes with plain onnxruntime and onnxruntime-gpu is installed; run "
                "pip uninstall -y onnxruntime-gpu && pip install onnxruntime"
            )
        if find_spec(MODULE) is None:
            return f"the package onnxruntime-ep-nv-tensorrt-rtx is not installed; run {INSTALL}"
        return None

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> OrtSession:
        """Load ``artifact``; kernels that were compiled before come from the cache.

        Nothing is written to ``optimized_model``: ONNX Runtime refuses to store a graph with an engine in it.

        Raises:
            VariantFailed: PROVIDER_MISSING, or the model doesn't load.
            Unsupported: an unknown option.
        """
        from autopilot.artifact import sha256_file
        from autopilot.cache.compiled import compiled_for
        from autopilot.target import Target

        chosen = with_defaults(dict(deployment.options), self.parameters)
        if not chosen["tf32"]:
            forbid_tf32()
        devices, version = _devices()
        options = session_options(deployment, {}, None, artifact, profile_to=profile_to)
        here = self.facts.engine_key(Target.detect())
        key = digest([sha256_file(artifact), here, version, dict(chosen), deployment.batch])[:16]
        cache = compiled_for(tensorrt.cache_folder(), f"rtx-{key}")
        inputs, _ = tensorrt.seen_in(artifact)
        profiles = tensorrt.shape_profiles(inputs, deployment.batch)
        options.add_provider_for_devices(devices[:1], provider_options(chosen, cache, profiles))
        return DeviceSession(open_session(artifact, options, [], fallback=False).inner)


def _devices() -> tuple[list[Any], str]:
    """The devices that the plug-in offers, and its version; it is registered at the first call of a process.

    Raises:
        VariantFailed: PROVIDER_MISSING, where it can't be loaded or offers none.
    """
    import onnxruntime as ort

    hint = "`autopilot doctor` says what is missing."
    if find_spec(MODULE) is None:
        message = "the package onnxruntime-ep-nv-tensorrt-rtx is not installed."
        raise VariantFailed(Failure.PROVIDER_MISSING, message, hint)
    import onnxruntime_ep_nv_tensorrt_rtx as plugin

    name = str(plugin.get_ep_name())
    try:
        if not any(d.ep_name == name for d in ort.get_ep_devices()):
            ort.register_execution_provider_library(name, plugin.get_library_path())
    except ort_errors() as exc:
        raise translate(exc, "TensorRT for RTX can't be loaded", Failure.PROVIDER_MISSING) from exc
    found = [d for d in ort.get_ep_devices() if d.ep_name == name]
    if not found:
        raise VariantFailed(Failure.PROVIDER_MISSING, "TensorRT for RTX offers no device here.", hint)
    return found, str(plugin.__version__)


PROVIDER = TensorrtRtxProvider()
