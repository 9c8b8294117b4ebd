"""Scores of earlier runs: the same bytes under the same numerics on the same data are scored once.

Only what doesn't depend on the moment is kept: never a latency, a memory figure or any other reading of time.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from autopilot import plugins
from autopilot.cache import SharedCache
from autopilot.cache.code import code_digest
from autopilot.cache.sealed import read_sealed, write_sealed
from autopilot.contracts import facts_of
from autopilot.errors import BadInput
from autopilot.profile import Int8Audit, QualityReading
from autopilot.profile.storage import load_record, record_bytes
from autopilot.recipe import Deployment, digest
from autopilot.scoring import FunctionMetric

if TYPE_CHECKING:
    from autopilot.artifact import Artifact
    from autopilot.data import Split
    from autopilot.search.prepare import Setup

# Raise it when a score means something else, or is stored in another way.
_SCHEMA = 1
# How a session runs, not what it computes: scoring takes one thread a run whatever the deployment's is.
_NO_NUMERICS = frozenset({"arena", "mem_pattern", "spinning", "execution_mode"})
# What scores, whatever computed the outputs; that is its provider's to name, but for ONNX Runtime, which comes as one
# of two distributions. (What built the artifact is in its bytes.)
_LIBRARIES = ("model-autopilot", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "scikit-learn", "scipy")
_SCORING = (
    "autopilot.bench.agreement", "autopilot.bench.answers", "autopilot.bench.outputs", "autopilot.bench.scorer",
    "autopilot.data", "autopilot.metrics", "autopilot.model", "autopilot.providers", "autopilot.scoring",
    "autopilot.torch_model",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeptScore:
    """One score, whole.

    ``took_s``: what it cost, in seconds, when it was read; ``sizes``: samples a run whose answers agreed with it.
    """

    reading: QualityReading
    audit: Int8Audit | None
    took_s: float
    sizes: tuple[int, ...] = ()


def numerics(deployment: Deployment, batch: int) -> list[Any]:
    """What of ``deployment`` decides what is computed, in runs of ``batch`` samples."""
    provider = plugins.providers().get(deployment.provider)
    told = None if provider is None else facts_of(provider).numerics
    options = {n: v for n, v in deployment.options if (n not in _NO_NUMERICS if told is None else n in told)}
    return [deployment.provider, options, batch]


def scorer(setup: Setup) -> str | None:
    """Digest of everything that turns outputs into a score on this machine; None for what can't be known.

    A user's function (metric or hook) may import and read anything: what depends on one is not kept for
    other runs.
    """
    problem, metric, target = setup.problem, setup.metric, setup.target
    if isinstance(metric, FunctionMetric) or problem.data.preprocess or problem.data.postprocess:
        return None
    machine = [target.machine, list(target.cpu_flags) or target.cpu, list(target.gpus), target.gpu_driver]
    asked = [metric.name, {**metric.options, **problem.metric.options}, problem.metric.output]
    return digest([_SCHEMA, asked, _code(setup), _versions(setup), machine])


def _code(setup: Setup) -> str:
    """Digest of the code that runs and scores: ours, and the plug-ins' own where other packages bring them."""
    plugged = [setup.metric.score, *(plugins.providers()[name] for name in setup.space.providers)]
    modules = {getattr(p, "__module__", None) or type(p).__module__ for p in plugged}
    return code_digest(*_SCORING, *sorted(m for m in modules if not m.startswith("autopilot.")))


def _versions(setup: Setup) -> Mapping[str, str]:
    """Installed versions of what scores and of what the space's providers compute with."""
    computing = {name for p in setup.space.providers for name in facts_of(plugins.providers()[p]).libraries}
    found: dict[str, str] = {}
    for name in sorted({*_LIBRARIES, *computing}):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    for told in (facts_of(plugins.providers()[p]).unpackaged() for p in setup.space.providers):
        found.update(told)
    return found


class KeptScores:
    """The scores in a cache."""

    def __init__(self, cache: SharedCache) -> None:
        self._folder = cache.folder.quality

    def get(self, key: str) -> KeptScore | None:
        """What is kept under ``key``; a damaged file counts as none."""
        payload = read_sealed(self._folder / f"{key}.npz")
        try:
            return load_record(io.BytesIO(payload), KeptScore) if payload is not None else None
        except BadInput:  # whole, but of a version that names its fields otherwise
            return None

    def put(self, key: str, score: KeptScore, artifact: Artifact, split: Split) -> None:
        """Keep ``score`` for later runs; a full disk costs those a pass, and this one nothing."""
        about = f"{score.reading.metric} of {artifact.sha256[:8]} on {split.n} samples ({split.name})"
        with contextlib.suppress(OSError):
            write_sealed(self._folder / f"{key}.npz", record_bytes(score), about)
