"""What a plug-in declares: Technique, Provider, Meter, Metric.

A plug-in is one module of ``techniques/``, ``providers/``, ``meters/`` or ``metrics/`` with one
module-level object: ``TECHNIQUE``, ``PROVIDER``, ``METER`` or ``METRICS`` (a tuple). The module's
name is the plug-in's name and its key in recipes and specs. Heavy libraries are imported inside
the functions that need them, so that listing plug-ins stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from autopilot.domain import Domain, Scalar
from autopilot.profile import Measurement, OperatorCost, Placement, Profile
from autopilot.recipe import Deployment, Recipe

if TYPE_CHECKING:
    from autopilot.data import Split
    from autopilot.spec import TorchSource
    from autopilot.target import Target

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]


class Slot(StrEnum):
    """Where in a recipe a technique goes; a recipe takes at most one technique a slot, in this order."""

    STRUCTURE = "structure"  # distil, prune (torch)
    GRAPH = "graph"  # fusion, graph clean-up
    PRECISION = "precision"  # weight-only, dynamic, static int8, float16


class Stage(StrEnum):
    """After which part of a trial an axis is known; cheap ones first."""

    BUILD = "build"
    SMOKE = "smoke"
    LATENCY = "latency"
    QUALITY = "quality"


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What ``apply`` may use besides the model.

    ``calibration`` is None when the technique needs none; ``scratch`` is a folder that survives
    between builds of the same study (calibration caches, sensitivity tables), keyed by content by
    the technique itself; ``threads`` how many cores the build may use. ``train`` is None where the spec
    names no training data; ``torch_source`` the PyTorch model that the ONNX file was exported from, if one
    was; ``tell`` takes a line about how far a long step is.
    """

    calibration: Split | None
    scratch: Path
    threads: int
    metric_is_classification: bool = False
    train: Split | None = None
    torch_source: TorchSource | None = None
    tell: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, slots=True)
class Technique:
    """One way to change a model file.

    ``apply(source, target_folder, params, context)`` reads the ONNX file ``source``, writes the new
    model as ``target_folder / "model.onnx"`` (external data beside it) and raises ``Unsupported``
    when it can't take this model. ``version`` is part of the cache key: raise it when the output
    for the same input changes. ``libraries`` are the distributions whose versions matter likewise.
    ``claims_int8`` marks techniques whose output is audited for what really runs in int8.
    ``available(target)`` gives None or the reason why this machine can't use it; ``prefer(target)``
    gives known-good parameter sets for this machine, best first (they warm-start the search);
    ``sensible(target)`` gives, for some parameters, the values worth trying on this machine; a search
    space that names such a parameter itself overrides it;
    ``refuses(earlier, params)`` gives None or why it can't follow those steps;
    ``normalise(params)`` drops or fixes parameters that don't matter given the others (a percentile
    under min-max calibration), so that equal builds have equal recipes;
    ``on_by_default`` tells which technique a space that names none includes;
    ``needs_training`` that what it builds depends on the training data and the PyTorch model.
    """

    name: str
    slot: Slot
    version: int
    parameters: Mapping[str, Domain]
    apply: Callable[[Path, Path, Mapping[str, Scalar], BuildContext], None]
    summary: str
    libraries: tuple[str, ...] = ("onnx", "onnxruntime")
    needs_calibration: bool = False
    needs_training: bool = False
    claims_int8: bool = False
    on_by_default: bool = True
    available: Callable[[Target], str | None] = lambda target: None
    prefer: Callable[[Target], tuple[Mapping[str, Scalar], ...]] = lambda target: ({},)
    sensible: Callable[[Target], Mapping[str, tuple[Scalar, ...]]] = lambda target: {}
    refuses: Callable[[Recipe, Mapping[str, Scalar]], str | None] = lambda earlier, params: None
    normalise: Callable[[Mapping[str, Scalar]], Mapping[str, Scalar]] = lambda params: params


class Session(Protocol):
    """A loaded model in the server process."""

    @property
    def output_names(self) -> tuple[str, ...]: ...

    def run(self, feed: Feed) -> list[Array]:
        """Outputs in the order of ``output_names``; host arrays in, host arrays out."""

    def placement(self) -> Placement: ...

    def operator_costs(self, requests: int) -> tuple[OperatorCost, ...]:
        """Costs of the last ``requests`` runs by operator, the dearest first; ends profiling.

        Raises:
            Unsupported: the session was opened without ``profile_to``, or its runtime can't tell.
        """


class Provider(Protocol):
    """One way to run an artifact. ``open`` runs in the server process, the rest in the parent."""

    name: str
    parameters: Mapping[str, Domain]
    thread_choices: bool

    def usable(self, target: Target) -> str | None:
        """None when it can run here, else the reason."""

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> Session:
        """Load ``artifact``; where ``optimized_model`` is given, also write the graph that really runs there.

        ``profile_to`` asks for a session that times every node, for ``Session.operator_costs``: files that the
        runtime needs for that begin with this path. A provider that can't profile raises Unsupported then.

        Raises:
            VariantFailed: with PROVIDER_MISSING or PROVIDER_FALLBACK.
            Unsupported: ``profile_to`` where this provider has no profiler.
        """


@dataclass(frozen=True, slots=True)
class Axis:
    """One measured quantity; the unit is in its name.

    ``higher_is_better`` gives a bare limit its direction; ``stage`` tells when the value is known.
    """

    name: str
    higher_is_better: bool
    stage: Stage
    summary: str


class Meter(Protocol):
    """Turns a Profile into measurements of its axes. Pure: no clock, no file, no process."""

    name: str
    axes: tuple[Axis, ...]

    def axis(self, name: str) -> Axis | None:
        """The axis called ``name`` if it is this meter's (``latency_p97.5_ms`` is latency's), else None."""

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        """The measurement of one axis; ``Measurement.missing`` with the reason where there is none."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How predictions are scored.

    ``score(outputs, labels, options)`` gives one figure for all samples; ``per_sample`` gives one
    figure a sample (float64, shape (n,)) where the score is their mean, which makes paired
    intervals exact and cheap. ``labels`` is None for metrics that compare with the baseline:
    then it receives the baseline's outputs (``against_baseline``).
    ``check(outputs, labels, options)`` raises DataError when the labels don't fit.
    ``outputs``: the scored output, shape (n, …). ``labels``: shape (n, …).
    """

    name: str
    higher_is_better: bool
    score: Callable[[Array, Array, Mapping[str, Any]], float]
    summary: str
    per_sample: Callable[[Array, Array, Mapping[str, Any]], npt.NDArray[np.float64]] | None = None
    against_baseline: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Array, Array, Mapping[str, Any]], None] = lambda outputs, labels, options: None
