"""ONNX Runtime's TensorRT provider. Its options are those of onnxruntime-gpu 1.31.1; not yet run on a GPU."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.contracts import ProviderFacts
from autopilot.domain import Choice, Domain, Scalar
from autopilot.providers import cuda
from autopilot.providers._cuda_libraries import TENSORRT, version_in_name
from autopilot.providers._ort import OrtSession, session_options, with_defaults
from autopilot.providers._ort_bound import BoundSession, OneGraphSession
from autopilot.providers._ort_gpu import (
    EXACT,
    GPU_ENERGY,
    GPU_MEMORY,
    GRAPH,
    IN_TF32,
    IO,
    TF32,
    USUAL,
    forbid_tf32,
    io_while,
    open_on_device,
    served,
    why_no_tensorrt,
)
from autopilot.recipe import Deployment, Rival, digest, params_of

if TYPE_CHECKING:
    import onnxruntime

    from autopilot.target import Target

EXECUTION_PROVIDER = "TensorrtExecutionProvider"
PARAMETERS: Mapping[str, Domain] = {
    "device": Choice((0, 1, 2, 3, 4, 5, 6, 7)),
    # What float products may be computed in; TensorRT takes whatever is fastest among them.
    "precision": Choice(("fp16", "fp32", "bf16")),
    # Of what stays in float32; the provider has no option of its own for it.
    "tf32": TF32,
    # Higher builds longer. 3 is TensorRT's default.
    "builder_level": Choice((3, 5, 2)),
    "io": IO,
}
FREE = -1
LIBRARY = "TensorRT"
# Quality is scored with so many samples a run (SCORING_BATCH of search/prepare.py) where that gives the answers of
# single runs: an engine for fewer would refuse them, as shapes outside of its profile.
SCORED_TOGETHER = 4


def cache_folder() -> Path:
    """Where engines and timings are kept between processes and studies: in the cache that runs share."""
    from autopilot.cache.compiled import compiled

    return compiled("tensorrt")


def provider_options(chosen: Mapping[str, Scalar], cache: Path, engine: str, *, quantized: bool) -> dict[str, Any]:
    """ONNX Runtime's names and values for ``chosen``; engines under ``cache``/``engine``, timings beside them.

    ``quantized``: the model holds QDQ, which TensorRT takes with its int8 flag alone; without QDQ that flag asks
    for a calibration table that isn't there.
    """
    flag = {True: "1", False: "0"}
    return {
        "device_id": str(chosen["device"]),
        "trt_fp16_enable": flag[chosen["precision"] == "fp16"],
        "trt_bf16_enable": flag[chosen["precision"] == "bf16"],
        "trt_int8_enable": flag[quantized],
        "trt_builder_optimization_level": str(chosen["builder_level"]),
        "trt_cuda_graph_enable": flag[chosen["io"] == GRAPH],
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache / engine),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(timings(cache, chosen)),
    }


def library_versions() -> dict[str, str]:
    """TensorRT's version where no wheel brings it: an archive on LD_LIBRARY_PATH, as the doctor says."""
    return {LIBRARY: version_in_name(TENSORRT[0])}


def engine_key(facts: ProviderFacts, target: Target) -> str:
    """As ``facts`` has it; another one each time where nothing tells TensorRT's version, and no engine is reused."""
    known = target.version_of("tensorrt") or any(library_versions().values())
    return facts.engine_key(target) if known else uuid.uuid4().hex


def timings(cache: Path, chosen: Mapping[str, Scalar]) -> Path:
    """The folder of how long kernels took, for engines of every model.

    One of its own without TensorFloat-32: nothing says that TensorRT would tell kernels with it apart there.
    """
    return cache / ("timings" if chosen["tf32"] else "timings-exact")


def shape_profiles(inputs: Sequence[tuple[str, Sequence[int]]], batch: int) -> dict[str, str]:
    """Options for an engine of 1 to ``batch`` samples (or ``SCORED_TOGETHER``), best at ``batch``.

    None where other dimensions are free too.

    ``inputs``: names and shapes of the model's inputs, free dimensions as ``FREE``. Without profiles the provider
    takes the shapes of the first request, and builds again in the middle of serving when others come.

    >>> shape_profiles([("x", (-1, 3))], 8)["trt_profile_opt_shapes"]
    'x:8x3'
    """
    shapes = [(name, tuple(shape)) for name, shape in inputs]
    if not any(FREE in shape for _, shape in shapes) or any(FREE in shape[1:] for _, shape in shapes):
        return {}

    def told(samples: int) -> str:
        sizes = ((name, (samples, *s[1:]) if s and s[0] == FREE else s) for name, s in shapes)
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes)

    sizes = {"min": 1, "opt": batch, "max": max(batch, SCORED_TOGETHER)}
    return {f"trt_profile_{key}_shapes": told(samples) for key, samples in sizes.items()}


@dataclass(frozen=True, slots=True)
class TensorrtProvider:
    """Runs engines of TensorRT on an NVIDIA device; what TensorRT can't take runs on CUDA, and placement tells."""

    name: str = "tensorrt"
    execution_provider: str = EXECUTION_PROVIDER
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(PARAMETERS))
    thread_choices: bool = False
    facts: ProviderFacts = field(
        default_factory=lambda: ProviderFacts(
            precisions=("float32", "float16", "bfloat16", "int8"),
            memory_axes=GPU_MEMORY,
            energy_counters=GPU_ENERGY,
            numerics=("precision", "tf32", "builder_level"),
            libraries=("onnxruntime-gpu", "tensorrt"),
            unpackaged=library_versions,
            hardware=("gpus", "gpu_driver"),
            sensible=cuda.sensible,
            per_shape=True,
            exact=params_of({"precision": "fp32", **EXACT}),
            rivals=(IN_TF32, Rival("fp16", options=params_of({"precision": "fp16", **USUAL}))),
            unaudited="a TensorRT engine shows ONNX Runtime none of its kernels",
        )
    )

    def usable(self, target: Target) -> str | None:
        """None, or which of device, driver, packages and libraries is missing and how to get it."""
        return why_no_tensorrt(target)

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> OrtSession:
        """Load ``artifact``, from an engine built before where it still holds; else the build is part of ``load_s``.

        Nothing is written to ``optimized_model``: ONNX Runtime refuses to store a graph with an engine in it.

        Raises:
            VariantFailed: PROVIDER_MISSING, or the model doesn't load.
            Unsupported: an unknown option, or ``io`` graph of a model that can't be captured.
        """
        from autopilot.artifact import sha256_file
        from autopilot.cache.compiled import compiled_for
        from autopilot.target import Target

        chosen = with_defaults(dict(deployment.options), self.parameters)
        if not chosen["tf32"]:
            forbid_tf32()
        _load_libraries()
        chosen["io"] = io = io_while(profile_to is not None, str(chosen["io"]))
        options = session_options(deployment, {}, None, artifact, profile_to=profile_to)
        here = engine_key(self.facts, Target.detect())
        # How arrays are handed over changes no engine: what was built for one way serves the others.
        built = {name: value for name, value in chosen.items() if name != "io"}
        engine = digest([sha256_file(artifact), here, built, deployment.batch])[:16]
        cache = cache_folder()
        for folder in (engine, timings(cache, chosen).name):
            compiled_for(cache, folder)
        inputs, quantized = seen_in(artifact)
        profiles = shape_profiles(inputs, deployment.batch)
        device = int(chosen["device"] or 0)

        def session(graph: str) -> onnxruntime.InferenceSession:
            own = provider_options(chosen | {"io": graph}, cache, engine, quantized=quantized) | profiles
            on_cuda = (cuda.EXECUTION_PROVIDER, {"device_id": str(device), "use_tf32": "1" if chosen["tf32"] else "0"})
            return open_on_device(artifact, options, [(EXECUTION_PROVIDER, own), on_cuda])

        if io != GRAPH:
            return served(session(io), io, device)
        graphed = BoundSession(session(GRAPH), "cuda", device, graphs=True)
        return OneGraphSession(graphed, lambda: served(session("bound"), "bound", device))


def seen_in(artifact: Path) -> tuple[list[tuple[str, list[int]]], bool]:
    """Names and shapes of the model's inputs, and whether it holds QDQ: from a CPU session that optimizes nothing."""
    from autopilot.providers._ort import open_session

    options = session_options(Deployment("cpu"), {"graph_optimization": "disabled"}, None, artifact)
    session = open_session(artifact, options, ["CPUExecutionProvider"]).inner
    inputs = [(i.name, [d if isinstance(d, int) else FREE for d in i.shape]) for i in session.get_inputs()]
    kinds = {node.op_type for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()}
    return inputs, "DequantizeLinear" in kinds


def _load_libraries() -> None:
    """Load TensorRT from NVIDIA's wheel where that is installed: ONNX Runtime preloads CUDA's and cuDNN's only."""
    if find_spec("tensorrt_libs") is not None:
        import_module("tensorrt_libs")


PROVIDER = TensorrtProvider()
