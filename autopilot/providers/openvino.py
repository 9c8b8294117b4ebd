"""OpenVINO's own runtime on the host's cores.

Through its Python package and not through ONNX Runtime's plug-in of it, which lists no device on processors
that aren't Intel's: docs/decisions/0007-openvino.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import ProviderFacts
from autopilot.domain import Choice, Domain, Scalar
from autopilot.providers._loads import why_not_loaded
from autopilot.providers._openvino import NAME, OpenVinoSession, Settings, open_session
from autopilot.providers._ort import with_defaults
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    from autopilot.target import Target

# Not by the extra of this package, which would bring plain onnxruntime over onnxruntime-gpu where that is in its place.
INSTALL = "pip install 'openvino>=2026.1'"
# Elsewhere the hint is taken and nothing comes of it.
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")

# The first value is the default. Streams are no option: a served session answers one request at a time, and a stream
# is only filled by requests that come at the same time; several at a time are the deployment's instances.
PARAMETERS: Mapping[str, Domain] = {
    # OpenVINO's own default is bfloat16 where the processor has it, whatever the file says.
    "precision": Choice(("f32", "bf16")),
    # fixed: compiled anew for every set of shapes that comes; dynamic: once, for all of them.
    "shapes": Choice(("fixed", "dynamic")),
    "pinning": Choice((False, True)),
}


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """bfloat16 only where the processor multiplies it."""
    if any(target.has(flag) for flag in _BFLOAT16_FLAGS):
        return {}
    return {"precision": ("f32",)}


@dataclass(frozen=True, slots=True)
class OpenVinoProvider:
    """Runs on the host's cores; usable where the package openvino can be imported."""

    name: str = "openvino"
    execution_provider: str = NAME
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(PARAMETERS))
    thread_choices: bool = True
    facts: ProviderFacts = field(
        default_factory=lambda: ProviderFacts(
            precisions=("float32", "bfloat16", "int8"),
            numerics=("precision", "shapes"),
            libraries=("openvino",),
            sensible=sensible,
            per_shape=True,
        )
    )

    def usable(self, target: Target) -> str | None:
        """None, or that the package or the processor's kind is missing, or why the package can't be loaded."""
        lacking = why_not_loaded("openvino")
        if lacking is None:
            return None
        if target.machine.lower() not in ("x86_64", "amd64", "aarch64", "arm64"):
            return f"OpenVINO has no build for {target.machine} processors; run on x86-64 or ARM64"
        first = "" if lacking.endswith("not installed") else "pip uninstall -y openvino && "
        return f"{lacking}; run {first}{INSTALL}"

    def irrelevant(self, deployment: Deployment) -> tuple[str, ...]:
        """Pinning, where several instances run side by side: each binds its threads to the same first cores."""
        return ("pinning",) if deployment.instances > 1 else ()

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> OpenVinoSession:
        """Load ``artifact``.

        Nothing is written to ``optimized_model`` or ``profile_to``: where they are given, the runtime counts
        its kernels, for ``OpenVinoSession.kernels`` and ``OpenVinoSession.operator_costs``.

        Raises:
            VariantFailed: PROVIDER_MISSING, or BUILD_ERROR or OOM for a model that doesn't load.
            Unsupported: an unknown option, or an operator that OpenVINO doesn't know.
        """
        chosen = with_defaults(dict(deployment.options), self.parameters)
        settings = Settings(
            threads=deployment.threads,
            precision=str(chosen["precision"]),
            pinning=bool(chosen["pinning"]) and "pinning" not in self.irrelevant(deployment),
            fixed=chosen["shapes"] == "fixed",
            counts_kernels=optimized_model is not None,
            keeps_costs=profile_to is not None,
        )
        return open_session(artifact, settings)


PROVIDER = OpenVinoProvider()
