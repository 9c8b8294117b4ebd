"""torch.compile (inductor) on the host's cores: the artifact becomes a PyTorch module, compiled with g++."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import ProviderFacts
from autopilot.domain import Choice, Domain, Scalar
from autopilot.errors import Unsupported
from autopilot.providers._loads import why_not_loaded
from autopilot.providers._ort import with_defaults
from autopilot.recipe import Deployment, digest
from autopilot.torch_model import INSTALL, missing
from autopilot.torch_model.compiled import NAME, CompiledSession, Settings, open_session

if TYPE_CHECKING:
    from autopilot.target import Target

# The first value is the default.
PARAMETERS: Mapping[str, Domain] = {
    "mode": Choice(("default", "max-autotune-no-cudagraphs")),
    # Weights become constants of the compiled program: layouts and folding are settled beforehand.
    "freezing": Choice((True, False)),
    # fixed: compiled anew for every set of shapes that comes; dynamic: once, for all of them.
    "shapes": Choice(("fixed", "dynamic")),
}


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """No autotuning unless a space asks: it compiles and times many kernels at each start. Weights as constants.

    As arguments they are laid out anew at every request: a small CNN took 1.7 ms instead of 0.7.
    """
    return {"mode": ("default",), "freezing": (True,)}


def compiler() -> str:
    """The C++ compiler that inductor takes: what CXX names, else g++."""
    return os.environ.get("CXX") or "g++"


def cache_folder() -> Path:
    """Where inductor keeps what it compiled: in the cache that runs share."""
    from autopilot.cache.compiled import compiled

    return compiled("inductor")


@dataclass(frozen=True, slots=True)
class TorchCompileProvider:
    """Runs on the host's cores; usable where torch and a C++ compiler are installed."""

    name: str = "torch_compile"
    execution_provider: str = NAME
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(PARAMETERS))
    thread_choices: bool = True
    facts: ProviderFacts = field(
        default_factory=lambda: ProviderFacts(
            precisions=("float32",),
            operators=(),
            libraries=("torch",),
            sensible=sensible,
            per_shape=True,
            unaudited="inductor's kernels don't tell which operators of the ONNX file they come from",
        )
    )

    def usable(self, target: Target) -> str | None:
        """None, or that torch or the C++ compiler is missing, or why torch can't be loaded."""
        lacking = missing("torch")
        if lacking is not None:
            return f"{lacking} {INSTALL}"
        if shutil.which(compiler()) is None:
            return f"inductor needs the C++ compiler {compiler()}, which is not there; run apt-get install g++"
        broken = why_not_loaded("torch")
        return f"{broken}. {INSTALL}" if broken else None

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> CompiledSession:
        """Load ``artifact``; what was compiled before for the same model, options and threads is taken again.

        Raises:
            VariantFailed: PROVIDER_MISSING, or BUILD_ERROR for a file that is no model.
            Unsupported: an unknown option, ``profile_to``, or an operator that can't become PyTorch's.
        """
        from autopilot.target import Target

        chosen = with_defaults(dict(deployment.options), self.parameters)
        if profile_to is not None:
            raise Unsupported("inductor's kernels can't be timed by operator.")
        here = self.facts.engine_key(Target.detect())
        settings = Settings(
            threads=deployment.threads,
            mode=str(chosen["mode"]),
            freezing=bool(chosen["freezing"]),
            fixed=chosen["shapes"] == "fixed",
            cache=cache_folder(),
            key=digest([here, dict(chosen), deployment.threads]),
        )
        return open_session(artifact, settings)


PROVIDER = TorchCompileProvider()
