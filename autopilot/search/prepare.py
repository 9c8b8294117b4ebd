"""From a Problem to a Setup: everything resolved, checked and split, nothing measured yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from autopilot import plugins
from autopilot.artifact import Artifact, sha256_file
from autopilot.bench.arrivals import Load
from autopilot.bench.child import ChildLimits
from autopilot.bench.launcher import probe_batching
from autopilot.build.torch_export import EXAMPLE_SAMPLES, export_note, export_torch, sweep_exports
from autopilot.build.training import Training
from autopilot.contracts import Metric
from autopilot.data import Splits
from autopilot.data import prepare as prepare_data
from autopilot.data.example import take_example
from autopilot.data.hook_code import hook_code
from autopilot.errors import SpecError, VariantFailed
from autopilot.model import ModelInfo, inspect
from autopilot.needs import Lack
from autopilot.observer import Observer
from autopilot.recipe import Deployment, Recipe, Variant, digest
from autopilot.scoring import resolve_metric
from autopilot.search.blame import Given, blamed
from autopilot.search.given import check_format, given_deployment
from autopilot.search.preflight import baseline_error, check_metric
from autopilot.search.versions import made_with
from autopilot.space import SearchSpace
from autopilot.space_file import SpaceRequest, build_space
from autopilot.spec import Problem, TorchSource
from autopilot.target import Target
from autopilot.temporary import sweep

# Share of the machine's memory that one child may take; the rest is the parent's and the system's.
MEMORY_SHARE = 0.8
# Samples in one run, by scenario: all that a request holds, or what a server makes of single requests at most.
BATCHES: Mapping[str, tuple[int, ...]] = {"offline": (1, 2, 4, 8, 16, 32, 64), "server": (1, 2, 4, 8, 16)}
# Samples a run when only the answers matter. Runs go on side by side on all cores, so that larger ones
# were not faster (16.4 s for 4 and for 16 samples a run, 18.1 s for 1, on a 16 ms encoder).
SCORING_BATCH = 4


@dataclass(frozen=True, slots=True)
class Setup:
    """One study's fixed parts.

    ``batching`` tells whether several samples in one run give what single runs give; ``work`` is
    the folder for everything that is not a result.
    """

    problem: Problem
    target: Target
    info: ModelInfo
    model: Artifact
    splits: Splits
    metric: Metric
    space: SearchSpace
    work: Path
    limits: ChildLimits
    batching: bool

    @property
    def given(self) -> Variant:
        """The model as given, in the deployment that everything is first measured in."""
        return Variant(Recipe(), given_deployment(self.space))

    @property
    def classification(self) -> bool:
        """Whether answers are scores of classes: divergence is then measured between softmaxes."""
        labels = self.splits.validation.labels
        return labels is not None and labels.dtype.kind in "iub"

    @property
    def training(self) -> Training:
        """What steps that train work with."""
        source = self.problem.model if isinstance(self.problem.model, TorchSource) else None
        return Training.of(self.splits.train, source)

    @property
    def batches(self) -> tuple[int, ...] | None:
        """Samples that one run may hold in the spec's traffic; None for any number."""
        if not self.splits.validation.batched:
            return (1,)
        if self.info.batch is not None:
            return (self.info.batch,)
        if self.problem.traffic.is_server:
            return None if self.batching else (1,)
        return None if self.problem.traffic.scenario == "offline" else (1,)

    @property
    def fixed_batch(self) -> int | None:
        """The one number of samples that the model runs; None where it takes any."""
        return self.info.batch if self.splits.validation.batched else None

    @property
    def load(self) -> Load:
        """The scheduled requests of the spec's server traffic."""
        return Load.of(self.problem.traffic)

    def scoring_batch(self, deployment: Deployment, info: ModelInfo) -> int:
        """Samples a run for the quality pass of the model that ``info`` describes.

        Dynamically quantized models scale a whole batch at once, so what they answer depends on
        it: they are scored as they will be served.
        """
        if not self.splits.validation.batched:
            return 1
        if info.batch is not None:
            return info.batch
        if self.info.batch is not None or info.dynamic_quantized:
            return deployment.batch
        return max(SCORING_BATCH, deployment.batch) if self.batching else 1

    def compared_sizes(self, deployment: Deployment, info: ModelInfo) -> tuple[int, ...]:
        """Samples a run of serving that scoring doesn't use: answers there are compared with those that are scored.

        Of what a server may make of single requests, the ends; those between are compared as they are first run.
        None where the model as given answers otherwise in runs of several, since it samples or mixes samples.
        """
        if not self.batching or not self.splits.validation.batched or info.batch is not None:
            return ()
        ends = {1, deployment.batch} if self.problem.traffic.is_server and self.info.batch is None else set()
        return tuple(sorted((ends | {deployment.batch}) - {self.scoring_batch(deployment, info)}))


def prepare(problem: Problem, work: Path, observer: Observer) -> Setup:
    """Check model, data, metric and space against each other.

    Every study and check begins here: what dead ones left in the system's temporary folder is removed first.

    Raises:
        BadInput: naming the first thing that is wrong and what would be right.
    """
    sweep()
    serving = problem.traffic.is_server
    if serving:
        check_rate(problem, Load.of(problem.traffic))
    observer.doing("checking the model")
    info = inspect(resolve_model(problem, work))
    model = Artifact.of(list(info.files))
    metric = resolve_metric(problem.metric, plugins.metrics())
    target = Target.detect()
    threads = min(problem.target.threads or target.cores, target.cores)
    limits = child_limits(problem)
    # Without a sample dimension the inputs' first one is another (bands, steps): no batch size.
    fixed = info.batch if problem.data.batched else None
    request = SpaceRequest(problem.target.providers, threads, (fixed or 1,), serving=serving, lacks=lacks(problem))
    space = _space(problem, request, target)
    check_format(space, info.path)
    observer.doing("checking and splitting the data")
    splits = prepare_data(
        problem.data,
        problem.metric,
        info,
        work / "data",
        seed=problem.search.seed,
        metric_needs_labels=not metric.against_baseline,
    )
    observer.doing("trying the model")
    try:
        batching = _batching(info, splits, model, space, limits)
        if batching and problem.traffic.scenario in BATCHES and fixed is None:
            space = _space(problem, replace(request, batches=BATCHES[problem.traffic.scenario]), target)
        setup = Setup(problem, target, info, model, splits, metric, space, work, limits, batching)
        check_metric(setup)
    except VariantFailed as exc:
        found = Given(model, given_deployment(space), info, splits, problem.data, limits)
        raise blamed(exc, found, observer) or baseline_error(exc, info) from exc
    _tell(setup, observer)
    return setup


def lacks(problem: Problem) -> dict[Lack, str]:
    """What the spec doesn't give that a technique may need, and why."""
    found = {Lack.TORCH_MODEL: "it changes a PyTorch model, and the spec's model is an ONNX file"}
    if problem.data.train is None:
        found[Lack.TRAINING_DATA] = "it learns from training data, and the spec names no data.train"
    return found


def check_rate(problem: Problem, load: Load) -> None:
    """Refuse a throughput that a trace's own rate can't give; other rates stand in the spec and are checked there."""
    limit = problem.budget.limit("throughput_rps")
    if limit is not None and not limit.relative and limit.effective > load.rate_rps:
        raise SpecError(
            f"{problem.path}: throughput_rps {limit.text} can't be met: "
            f"only {load.rate_rps:.4g} requests a second come in {load.traffic.arrivals}.",
            "Lower it, or give traffic.rate_rps to speed the trace up.",
        )


def _tell(setup: Setup, observer: Observer) -> None:
    """What the user should know; told when all is checked, so that bad input stays one paragraph."""
    for warning in setup.splits.warnings:
        observer.note(warning)
    for name in setup.problem.target.providers:
        if name in setup.space.left_out:
            observer.note(f"provider {name} is left out: {setup.space.left_out[name]}")
    if note := export_note(setup.model.path):
        observer.note(note)
    asked, cores = setup.problem.target.threads, setup.target.cores
    if asked is not None and asked > cores:
        observer.note(f"target.threads is {asked}, but this machine has {cores} cores; they are used")


def _space(problem: Problem, request: SpaceRequest, target: Target) -> SearchSpace:
    return build_space(
        problem.space, request, target=target, techniques=plugins.techniques(), providers=plugins.providers()
    )


def _batching(info: ModelInfo, splits: Splits, model: Artifact, space: SearchSpace, limits: ChildLimits) -> bool:
    if not splits.validation.batched or info.batch is not None:  # one size alone runs
        return False
    return probe_batching(model.path, given_deployment(space), split=splits.validation, limits=limits)


def resolve_model(problem: Problem, work: Path) -> Path:
    """The ONNX file behind ``model:``: given, exported from PyTorch, or fetched from MLflow.

    What killed exports left in ``work`` is removed first.
    """
    sweep_exports(work / "model")
    if isinstance(problem.model, Path):
        return problem.model
    if isinstance(problem.model, TorchSource):
        return _exported(problem, problem.model, work)
    from autopilot.tracking import resolve_model as fetch

    return fetch(problem.model, work / "model")


def _exported(problem: Problem, source: TorchSource, work: Path) -> Path:
    example = take_example(problem.data, EXAMPLE_SAMPLES)
    threads = psutil.cpu_count() or 1
    return export_torch(source, example, folder=work / "model", limits=child_limits(problem), threads=threads).path


def child_limits(problem: Problem) -> ChildLimits:
    """Wall-clock and memory limits of every child process of this study."""
    wanted = problem.search.memory_limit_mb
    memory = int(wanted * 1e6) if wanted else int(psutil.virtual_memory().total * MEMORY_SHARE)
    return ChildLimits(wall_s=problem.search.step_timeout_s, memory_bytes=memory)


def identity(problem: Problem, files: Sequence[Path]) -> dict[str, str]:
    """Digests of what a resume must find unchanged, by the word a user would use for it.

    ``files``: the model's files, external data included. Of the user's functions the code that they import counts too.

    Raises:
        DataError: the file of a function can't be read.
    """
    model = digest([sha256_file(f) for f in files])
    out = {"spec": problem.digest, "model": model, "space file": sha256_file(problem.space)}
    for key in ("validation", "test", "train"):
        path = getattr(problem.data, key)
        out[f"{key} data"] = sha256_file(path) if path is not None else ""
    if problem.traffic.is_trace:
        out["trace"] = sha256_file(Path(problem.traffic.arrivals))
    hooks = {"preprocess": problem.data.preprocess, "postprocess": problem.data.postprocess}
    for key, hook in (hooks | {"metric": problem.metric.function}).items():
        code = hook_code(hook) if hook else None
        out[f"{key} function"] = digest(code.files) if code else ""
        out |= {f"library {name}": version for name, version in (code.libraries if code else {}).items()}
    return out | made_with(problem, Target.detect())
