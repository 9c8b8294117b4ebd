"""torch.compile (inductor) on an NVIDIA device: Triton's kernels, CUDA graphs, float16 and bfloat16.

Written against torch 2.13's source and documentation; not yet run on a GPU.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import ProviderFacts
from autopilot.domain import Choice, Domain, Scalar
from autopilot.errors import Unsupported
from autopilot.providers import torch_compile
from autopilot.providers._loads import why_not_loaded
from autopilot.providers._ort import with_defaults
from autopilot.providers._ort_gpu import EXACT, GPU_ENERGY, GPU_MEMORY, IN_TF32, NO_DEVICE, TF32, USUAL
from autopilot.recipe import Deployment, Rival, digest, params_of
from autopilot.torch_model import missing
from autopilot.torch_model.available import cuda_version, torch_version
from autopilot.torch_model.compiled import CUDA_NAME, CompiledSession, Settings, open_session
from autopilot.torch_model.on_device import HALVES, OWN

if TYPE_CHECKING:
    from autopilot.target import Target

# On Linux the package index gives a build with CUDA.
INSTALL = "pip install 'torch>=2.13,<2.14'"

# The first value is the default.
PARAMETERS: Mapping[str, Domain] = {
    # The file's own types; the halves are for the search to try.
    "precision": Choice((OWN, *HALVES)),
    # One launch for all kernels of a run; recorded for each set of shapes, so with fixed ones only.
    "cuda_graphs": Choice((True, False)),
    # Shared with the host's provider, but for shapes: graphs want fixed ones.
    **torch_compile.PARAMETERS,
    "tf32": TF32,  # on by default like ONNX Runtime's, beside which it is searched
    "device": Choice((0, 1, 2, 3, 4, 5, 6, 7)),
}


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """The first device, and no autotuning unless a space asks."""
    return {"mode": ("default",), "device": (0,)}


def why_not(target: Target) -> str | None:
    """What keeps torch.compile off NVIDIA devices here, the first thing first, with the command that mends it."""
    if not target.gpus:  # first: without a device nothing that is installed mends anything
        return NO_DEVICE
    lacking = missing("torch")
    if lacking is not None:
        return f"{lacking} Run {INSTALL}"
    if cuda_version() is None:
        return f"torch {torch_version()} is built without CUDA; run pip uninstall -y torch && {INSTALL}"
    if find_spec("triton") is None:
        return "triton is not installed, which inductor writes its kernels for devices in; run pip install triton"
    if compiler() is None:
        return "triton needs a C compiler (what CC names, gcc or clang); run apt-get install gcc"
    broken = why_not_loaded("torch")
    return f"{broken}; run pip uninstall -y torch && {INSTALL}" if broken else None


def compiler() -> str | None:
    """The C compiler that Triton takes: what CC names, else gcc, else clang; None where it isn't there."""
    named = os.environ.get("CC")
    return shutil.which(named) if named else shutil.which("gcc") or shutil.which("clang")


def settings(deployment: Deployment, chosen: Mapping[str, Scalar], here: str) -> Settings:
    """How ``deployment`` is compiled; ``chosen`` as ``with_defaults`` gives it, ``here`` as ``engine_key`` does."""
    fixed = chosen["shapes"] == "fixed"
    return Settings(
        threads=deployment.threads,
        mode=str(chosen["mode"]),
        freezing=bool(chosen["freezing"]),
        fixed=fixed,
        cache=torch_compile.cache_folder(),
        key=digest([here, dict(chosen)]),
        device=f"cuda:{chosen['device']}",
        precision=str(chosen["precision"]),
        graphs=bool(chosen["cuda_graphs"]) and fixed,
        tf32=bool(chosen["tf32"]),
    )


@dataclass(frozen=True, slots=True)
class TorchCompileCudaProvider:
    """Runs on an NVIDIA device; usable where there is one, torch with CUDA, Triton and a C compiler."""

    name: str = "torch_compile_cuda"
    execution_provider: str = CUDA_NAME
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(PARAMETERS))
    thread_choices: bool = False
    facts: ProviderFacts = field(
        default_factory=lambda: ProviderFacts(
            # Of files: one in bfloat16 doesn't become a PyTorch module, whose products could be in it all the same.
            precisions=("float32", "float16"),
            operators=(),
            memory_axes=GPU_MEMORY,
            energy_counters=GPU_ENERGY,
            # What is fused, folded and tuned decides how sums are rounded.
            numerics=("precision", "tf32", "mode", "freezing", "shapes"),
            libraries=("torch", "triton"),
            hardware=("gpus", "gpu_driver"),
            sensible=sensible,
            per_shape=True,
            exact=params_of({"precision": OWN, **EXACT}),
            rivals=(IN_TF32, Rival("float16", options=params_of({"precision": "float16", **USUAL}))),
            unaudited="inductor's kernels don't tell which operators of the ONNX file they come from",
        )
    )

    def usable(self, target: Target) -> str | None:
        """None, or which of torch, CUDA, device, Triton and compiler is missing and how to get it."""
        return why_not(target)

    def irrelevant(self, deployment: Deployment) -> tuple[str, ...]:
        """TensorFloat-32 where nothing is computed in float32; graphs without fixed shapes."""
        chosen = with_defaults(dict(deployment.options), self.parameters)
        unused = {"tf32": chosen["precision"] != OWN, "cuda_graphs": chosen["shapes"] != "fixed"}
        return tuple(name for name, is_unused in unused.items() if is_unused)

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> CompiledSession:
        """Load ``artifact``; what was compiled before for the same model, options and device is taken again.

        Raises:
            VariantFailed: PROVIDER_MISSING, BUILD_ERROR for a file that is no model, or OOM.
            Unsupported: an unknown option, ``profile_to``, or an operator that can't become PyTorch's.
        """
        from autopilot.target import Target

        chosen = with_defaults(dict(deployment.options), self.parameters)
        if profile_to is not None:
            raise Unsupported("inductor's kernels can't be timed by operator.")
        return open_session(artifact, settings(deployment, chosen, self.facts.engine_key(Target.detect())))


PROVIDER = TorchCompileCudaProvider()
