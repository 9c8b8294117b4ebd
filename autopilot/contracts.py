"""What a plug-in declares: Technique, Provider, Meter, Metric.

A plug-in is one module of ``techniques/``, ``providers/``, ``meters/`` or ``metrics/`` with one
module-level object: ``TECHNIQUE``, ``PROVIDER``, ``METER`` or ``METRICS`` (a tuple). The module's
name is the plug-in's name and its key in recipes and specs. Heavy libraries are imported inside
the functions that need them, so that listing plug-ins stays cheap.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from autopilot.domain import Domain, Scalar
from autopilot.needs import Ask, Need
from autopilot.profile import Kernel, Measurement, OperatorCost, Placement, Profile
from autopilot.recipe import Deployment, Params, Recipe, Rival, digest

if TYPE_CHECKING:
    from autopilot.data import Split
    from autopilot.spec import TorchSource
    from autopilot.target import Target

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]


class Slot(StrEnum):
    """Where in a recipe a technique goes; a recipe takes at most one technique a slot, in this order."""

    STRUCTURE = "structure"  # prune (torch)
    TRAINING = "training"  # distil (torch): what pruning left, or a smaller copy, learns from the model as given
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
    between builds, of other studies too (calibration caches, sensitivity tables), keyed by content by
    the technique itself; ``threads`` how many cores the build may use. ``train`` is None where the spec
    names no training data; ``torch_source`` the PyTorch model that the ONNX file was exported from, if one
    was; ``tell`` takes a line about how far a long step is. ``model`` is the model as given, an ONNX file: what
    steps that train learn from. ``deadline_s``: when the build must be over, on the monotonic clock of this process;
    None for no end. A training that sees it coming ends by itself.
    """

    calibration: Split | None
    scratch: Path
    threads: int
    metric_is_classification: bool = False
    train: Split | None = None
    torch_source: TorchSource | None = None
    tell: Callable[[str], None] = lambda text: None
    model: Path | None = None
    deadline_s: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds until the build must be over; infinite where nothing ends it."""
        return math.inf if self.deadline_s is None else self.deadline_s - time.monotonic()


@dataclass(frozen=True, slots=True)
class Technique:
    """One way to change a model file.

    ``apply(source, target_folder, params, context)`` reads the ONNX file ``source``, writes the new
    model as ``target_folder / "model.onnx"`` (external data beside it) and raises ``Unsupported``
    when it can't take this model. ``version`` is part of the cache key: raise it when the output
    for the same input changes. ``libraries`` are the distributions whose versions matter likewise.
    ``claims_int8`` marks techniques whose output is audited for what really runs in int8.
    ``needs`` are libraries, training data or a torch model that it can't do without: where one is missing the
    technique is left out, and the result says so; ``asks`` what a provider must take to run its files, by
    parameter where that decides: values are left out on a provider whose facts don't have it;
    ``available(target)`` gives None or another reason why this machine can't use it; ``prefer(target)``
    gives known-good parameter sets for this machine, best first (they warm-start the search);
    ``sensible(target)`` gives, for some parameters, the values worth trying on this machine; a search
    space that names such a parameter itself overrides it. All three are asked for each provider that a variant
    may run on, ``target.provider``: its kernels decide which form is fast;
    ``refuses(earlier, params)`` gives None or why it can't follow those steps;
    ``normalise(params)`` drops or fixes parameters that don't matter given the others (a percentile
    under min-max calibration), so that equal builds have equal recipes;
    ``on_by_default`` tells which technique a space that names none includes;
    ``machine_bound`` that ``apply`` times things, so that its result is kept for this kind of machine only.
    ``needs_training`` that what it builds depends on the training data, the model as given and its PyTorch code.
    ``work(params)`` is how long a build takes, in units of a usual build of some seconds: the search weighs what
    a variant promises against it, and learns the length of the unit. ``continues`` names the whole-numbered
    parameter whose next higher value goes on from what a lower one left, so that only the rest is paid.
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
    machine_bound: bool = False
    needs: tuple[Need, ...] = ()
    asks: tuple[Ask, ...] = ()
    available: Callable[[Target], str | None] = lambda target: None
    prefer: Callable[[Target], tuple[Mapping[str, Scalar], ...]] = lambda target: ({},)
    sensible: Callable[[Target], Mapping[str, tuple[Scalar, ...]]] = lambda target: {}
    refuses: Callable[[Recipe, Mapping[str, Scalar]], str | None] = lambda earlier, params: None
    normalise: Callable[[Mapping[str, Scalar]], Mapping[str, Scalar]] = lambda params: params
    work: Callable[[Mapping[str, Scalar]], float] = lambda params: 1.0
    continues: str = ""


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


@runtime_checkable
class TellsKernels(Protocol):
    """A session whose runtime has no ONNX graph to show for what runs, but knows its kernels."""

    def kernels(self) -> tuple[Kernel, ...] | None:
        """The kernels of the last run; None where the session wasn't opened with ``optimized_model``."""


@runtime_checkable
class AnswersInTurn(Protocol):
    """A session that answers one run after the other, whatever threads ask it, unless it is told of more."""

    def answer_side_by_side(self, runs: int) -> None:
        """Answer so many runs at a time from now on, each with the deployment's threads; scoring asks for it."""


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """What a provider declares beyond running models; the defaults are those of ONNX Runtime on the CPU.

    ``formats`` and ``precisions``: the artifacts it takes, by file ending and by the types that it has kernels
    for; ``operators``: the sets of operators that it takes beside ONNX's own.
    ``memory_axes`` and ``energy_counters``: what its memory and energy are read from on this hardware.
    ``numerics``: options that change answers, so that quality is scored again for each of their values; None where
    all may, but those that are known to every provider as harmless.
    ``libraries``: distributions whose versions belong to every figure taken with it.
    ``unpackaged``: versions of libraries that no distribution need bring, by the word a user would use; an empty one
    where it can't be told.
    ``hardware``: the fields of a Target that an engine built by it holds for.
    ``sensible(target)``: options -> values worth trying on this machine, as a technique's.
    ``exact``: options under which a model is computed in its own types, where a default does otherwise: losses are
    told against that. ``rivals``: what else is plain enough that it, and not the model as given, is the baseline
    where it is faster.
    ``per_shape``: it compiles, tunes or captures anew for each set of shapes that comes, for seconds: under scheduled
    traffic every size of batch is run before the first timed window.
    ``unaudited``: why what runs in int8 can't be told; empty where ``open`` writes the optimized graph or the
    session is one that ``TellsKernels``.
    """

    formats: tuple[str, ...] = (".onnx",)
    precisions: tuple[str, ...] = ("float32", "float16", "int8")
    operators: tuple[str, ...] = ("com.microsoft",)
    memory_axes: tuple[str, ...] = ("peak_memory_mb", "model_memory_mb", "resident_memory_mb")
    energy_counters: tuple[str, ...] = ("rapl",)
    numerics: tuple[str, ...] | None = None
    libraries: tuple[str, ...] = ("onnxruntime",)
    unpackaged: Callable[[], Mapping[str, str]] = dict
    hardware: tuple[str, ...] = ("cpu", "cpu_flags")
    sensible: Callable[[Target], Mapping[str, tuple[Scalar, ...]]] = lambda target: {}
    exact: Params = ()
    rivals: tuple[Rival, ...] = ()
    per_shape: bool = False
    unaudited: str = ""

    def takes(self, what: str) -> bool:
        """Whether files with ``what`` run, a type or a set of operators; see ``Ask``."""
        return what in self.precisions or what in self.operators

    def versions(self, target: Target) -> dict[str, str]:
        """Versions of all that figures are computed with, empty where something isn't there."""
        return {name: target.version_of(name) for name in self.libraries} | dict(self.unpackaged())

    def engine_key(self, target: Target) -> str:
        """A digest of what an engine built on ``target`` depends on: library builds, driver, device."""
        return digest([self.versions(target), {name: getattr(target, name) for name in self.hardware}])


def facts_of(provider: Provider) -> ProviderFacts:
    """What ``provider`` declares as ``facts``; a provider without them is taken for one like the CPU's."""
    facts: ProviderFacts = getattr(provider, "facts", ProviderFacts())
    return facts


def meets_each_shape(provider: Provider, deployment: Deployment) -> bool:
    """Whether ``provider`` compiles, tunes or captures anew for each set of shapes that comes to ``deployment``."""
    return facts_of(provider).per_shape and dict(deployment.options).get("shapes") != "dynamic"


class Provider(Protocol):
    """One way to run an artifact. ``open`` runs in the server process, the rest in the parent.

    ``usable`` names what is missing and the command that mends it. These are optional:
    ``execution_provider``, the name under which ``Session.placement`` reports its nodes (without it nothing is
    known of fallbacks), and ``facts``, see ``ProviderFacts``;
    ``irrelevant(deployment) -> tuple[str, ...]``: the names of its options that
    change nothing given the rest of ``deployment``, so that they make no variants of their own.
    """

    name: str
    parameters: Mapping[str, Domain]
    thread_choices: bool

    def usable(self, target: Target) -> str | None:
        """None when it can run here, else the precise reason and the command that mends it."""

    def open(
        self,
        artifact: Path,
        deployment: Deployment,
        *,
        optimized_model: Path | None = None,
        profile_to: Path | None = None,
    ) -> Session:
        """Load ``artifact``; where ``optimized_model`` is given, also write the graph that really runs there.

        A runtime that has no such ONNX graph writes nothing; its session then is one that ``TellsKernels``, or
        its ``facts.unaudited`` says why nobody can tell.

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
