"""ONNX Runtime's CUDA provider. Its options are those of onnxruntime-gpu 1.31.1; not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.contracts import ProviderFacts
from autopilot.domain import Choice, Domain, Scalar
from autopilot.providers._ort import OrtSession, session_options, with_defaults
from autopilot.providers._ort_gpu import (
    EXACT,
    GPU_ENERGY,
    GPU_MEMORY,
    GRAPH,
    HALF,
    HOST_PARAMETERS,
    IN_TF32,
    IO,
    TF32,
    io_while,
    open_on_device,
    served,
    why_not_on_gpu,
)
from autopilot.recipe import Deployment, params_of

if TYPE_CHECKING:
    from autopilot.target import Target

EXECUTION_PROVIDER = "CUDAExecutionProvider"
PARAMETERS: Mapping[str, Domain] = {
    **HOST_PARAMETERS,
    "device": Choice((0, 1, 2, 3, 4, 5, 6, 7)),
    # exhaustive tries every convolution at the first run of a shape, which is load_s.
    "conv_algorithms": Choice(("exhaustive", "heuristic", "default")),
    "copy_stream": Choice(("default", "own")),
    "channels_last": Choice((False, True)),
    "tf32": TF32,
    # plain: arrays handed to the runtime; bound: fixed memory on the device; graph: that, captured as a CUDA graph.
    "io": IO,
}


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """The first device: the spec's target is one machine, and which of its devices is free is the user's word."""
    return {"device": (0,)}


def provider_options(chosen: Mapping[str, Scalar]) -> dict[str, Any]:
    """ONNX Runtime's names and values for ``chosen``, as ``with_defaults`` gives it."""
    return {
        "device_id": str(chosen["device"]),
        "cudnn_conv_algo_search": str(chosen["conv_algorithms"]).upper(),
        "do_copy_in_default_stream": "1" if chosen["copy_stream"] == "default" else "0",
        "prefer_nhwc": "1" if chosen["channels_last"] else "0",
        "use_tf32": "1" if chosen["tf32"] else "0",
        "enable_cuda_graph": "1" if chosen["io"] == GRAPH else "0",
    }


@dataclass(frozen=True, slots=True)
class CudaProvider:
    """Runs on an NVIDIA device; usable where there is one and onnxruntime-gpu with CUDA and cuDNN."""

    name: str = "cuda"
    execution_provider: str = EXECUTION_PROVIDER
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(PARAMETERS))
    thread_choices: bool = False
    facts: ProviderFacts = field(
        default_factory=lambda: ProviderFacts(
            precisions=("float32", "float16", "bfloat16"),
            memory_axes=GPU_MEMORY,
            energy_counters=GPU_ENERGY,
            numerics=("graph_optimization", "tf32", "channels_last"),
            libraries=("onnxruntime-gpu",),
            hardware=("gpus", "gpu_driver"),
            sensible=sensible,
            per_shape=True,
            exact=params_of(EXACT),
            rivals=(IN_TF32, HALF),
        )
    )

    def usable(self, target: Target) -> str | None:
        """None, or which of device, driver, package and cuDNN is missing and how to get it."""
        return why_not_on_gpu(target)

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> OrtSession:
        """Load ``artifact``; also write the graph that really runs to ``optimized_model`` where given.

        Raises:
            VariantFailed: PROVIDER_MISSING, or the model doesn't load.
            Unsupported: an unknown option, or ``io`` graph of a model that can't be captured.
        """
        chosen = with_defaults(dict(deployment.options), self.parameters)
        chosen["io"] = io = io_while(profile_to is not None, str(chosen["io"]))
        options = session_options(deployment, chosen, optimized_model, artifact, profile_to=profile_to)
        providers = [(EXECUTION_PROVIDER, provider_options(chosen))]
        return served(open_on_device(artifact, options, providers), io, int(chosen["device"] or 0))


PROVIDER = CudaProvider()
