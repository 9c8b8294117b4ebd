"""ONNX Runtime's own CPU provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.domain import Domain
from autopilot.providers._ort import SESSION_PARAMETERS, OrtSession, open_session, session_options, with_defaults
from autopilot.recipe import Deployment

if TYPE_CHECKING:
    from autopilot.target import Target

EXECUTION_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class CpuProvider:
    """Runs on the host's cores; usable wherever onnxruntime is installed."""

    name: str = "cpu"
    execution_provider: str = EXECUTION_PROVIDER
    parameters: Mapping[str, Domain] = field(default_factory=lambda: dict(SESSION_PARAMETERS))
    thread_choices: bool = True

    def usable(self, target: Target) -> str | None:
        """None, or that onnxruntime is not installed."""
        return None if find_spec("onnxruntime") else "onnxruntime is not installed; run pip install onnxruntime"

    def irrelevant(self, deployment: Deployment) -> tuple[str, ...]:
        """Threads that spin while they wait: there are none with one thread, but for nodes side by side."""
        is_parallel = dict(deployment.options).get("execution_mode") == "parallel"
        return ("spinning",) if deployment.threads == 1 and not is_parallel else ()

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> OrtSession:
        """Load ``artifact``; also write the graph that really runs to ``optimized_model`` where given.

        With ``profile_to`` (a path's beginning) every node is timed, for ``OrtSession.operator_costs``.

        Raises:
            VariantFailed: the model doesn't load (BUILD_ERROR, OOM) or an option is unknown.
        """
        chosen = with_defaults(dict(deployment.options), self.parameters)
        options = session_options(deployment, chosen, optimized_model, artifact, profile_to=profile_to)
        return open_session(artifact, options, [EXECUTION_PROVIDER])


PROVIDER = CpuProvider()
