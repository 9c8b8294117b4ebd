"""``autopilot check``: one model file or bundle against a spec's budget, no search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autopilot import plugins
from autopilot.artifact import Artifact
from autopilot.budget import Budget, Judgement, Verdict
from autopilot.errors import BadInput, Failure, ModelError, VariantFailed
from autopilot.model import ModelInfo, inspect
from autopilot.observer import Observer
from autopilot.profile import Measurement, OperatorTable, StageShares
from autopilot.recipe import Deployment, Recipe, Variant
from autopilot.result import BaselineChoice, Status
from autopilot.result.jsonable import measured_to_json, plain, verdict_to_json
from autopilot.search.evaluator import Evaluator
from autopilot.search.foreseen import foreseen
from autopilot.search.outcome import RETRIED, VERIFYING, Outcome
from autopilot.search.prepare import Setup, prepare, resolve_model
from autopilot.search.rivals import choice_of, settle_baseline
from autopilot.search.samples import save_check
from autopilot.spec import Problem, TorchSource
from autopilot.temporary import temporary_folder


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What ``check`` found: the model's figures and its verdict, or the ``failure`` that left it without.

    ``reason`` says in a sentence what the failure was; ``baseline_choice`` what relative limits are against.
    """

    status: Status
    model: Path
    sha256: str
    deployment: Deployment
    measured: Mapping[str, Measurement]
    verdict: Verdict | None
    budget: Budget
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None
    reason: str = ""
    stages: StageShares | None = None
    operators: OperatorTable | None = None
    baseline_choice: BaselineChoice = field(default_factory=BaselineChoice)

    @property
    def exit_code(self) -> int:
        return self.status.exit_code

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "status": self.status.value,
            "model": str(self.model),
            "sha256": self.sha256,
            "deployment": self.deployment.to_json(),
            "measured": measured_to_json(self.measured),
            **verdict_to_json(self.verdict),
            "budget": self.budget.to_json(),
            "failure": self.failure.value if self.failure else None,
            "reason": self.reason,
            "warnings": list(self.warnings),
            "baseline_choice": self.baseline_choice.to_json(),
            "stages": plain(self.stages.to_json()) if self.stages else None,
            "operators": plain(self.operators.to_json()) if self.operators else None,
        }


def check_model(
    model: Path | TorchSource, problem: Problem, *, observer: Observer, samples: Path | None = None
) -> CheckResult:
    """Measure ``model`` beside the spec's own model, on the held-back data.

    ``model`` is an ONNX file, a PyTorch model, which is exported with the spec's data first, or a bundle: a folder
    with ``variant.json``, which is then run in its own deployment. Relative limits and the loss of quality are
    against the spec's model. A model that crashes, hangs, runs out of memory, answers with what is no number or
    fails the audit (as the spec's ``audit`` says) doesn't meet the budget: it gets no verdict, but its ``failure``.
    ``samples``: a file that all readings are written to.

    Raises:
        BadInput: the model can't be loaded or doesn't take the spec's inputs, or spec or data are wrong.
    """
    if samples is not None and (samples.suffix != ".npz" or not samples.parent.is_dir()):
        raise BadInput(f"readings can't be written to {samples}.", "Name a file FILE.npz in a folder that exists.")
    with temporary_folder("check") as folder:
        path, deployment = _open(model, problem, folder)
        shown = model.path if isinstance(model, TorchSource) else path
        inspect(path)  # what is no model is told at once
        setup = prepare(problem, folder, observer)
        variant, artifact = _fitted(path, deployment, setup)
        chosen = variant.deployment
        with Evaluator(setup, observer) as evaluator:
            observer.phase("measuring the spec's model")
            evaluator.measure_baseline()
            settle_baseline(evaluator)
            choice = choice_of(evaluator)
            for text in foreseen(evaluator):
                observer.note(text)
            observer.phase("measuring the model against the budget")
            try:
                outcome = measure_again(evaluator, variant, artifact)
            except VariantFailed as exc:
                nothing = CheckResult(Status.NO_FIT, shown, artifact.sha256, chosen, {}, None, problem.budget)
                return _failed(exc, replace(nothing, baseline_choice=choice))
            verdict = evaluator.verdict(outcome)
            if samples is not None:
                save_check(samples, evaluator, outcome, verdict)
            evaluator.take_costs(outcome)
        observer.finished()
        warnings = tuple(dict.fromkeys([*setup.splits.warnings, *outcome.warnings]))
        return CheckResult(
            _STATUS[verdict.overall],
            shown,
            artifact.sha256,
            chosen,
            outcome.measured,
            verdict,
            problem.budget,
            warnings,
            stages=outcome.profile.stages if outcome.profile else None,
            operators=outcome.profile.operators if outcome.profile else None,
            baseline_choice=choice,
        )


def fitting(model: Path, setup: Setup) -> tuple[Variant, Artifact]:
    """A bundle (or file) as it would be measured for the study of ``setup``.

    Raises:
        BadInput: it doesn't take the study's inputs or traffic, or can't be run here.
    """
    return _fitted(*_open_bundle(model), setup)


def _fitted(path: Path, deployment: Deployment | None, setup: Setup) -> tuple[Variant, Artifact]:
    info = inspect(path)
    _same_inputs(info, setup.info)
    chosen = deployment or setup.space.default_deployment()
    _usable(chosen, setup)
    _takes_batch(info, chosen, setup)
    return Variant(Recipe(), chosen), Artifact.of(list(info.files))


def measure_again(evaluator: Evaluator, variant: Variant, artifact: Artifact) -> Outcome:
    """The model's measurement; one more attempt where the failure may be bad luck.

    Raises:
        VariantFailed: it failed (again).
    """
    try:
        return evaluator.measure(variant, artifact, VERIFYING)
    except VariantFailed as exc:
        if exc.failure not in RETRIED:
            raise
        evaluator.observer.note(f"{exc.failure.value}: {exc.message} Trying once more.")
    return evaluator.measure(variant, artifact, VERIFYING)


def _failed(exc: VariantFailed, result: CheckResult) -> CheckResult:
    """What a model that fails while it runs comes to.

    Raises:
        ModelError: it can't be loaded at all.
    """
    if exc.failure not in _MISSES:
        message = f"{result.model}: can't be run ({exc.failure.value}): {exc.message}"
        raise ModelError(message, exc.hint) from exc
    reason = f"{exc.message} {exc.hint}" if exc.failure in (*_AUDITED, Failure.UNSTABLE) else exc.message
    status = Status.UNDECIDED if exc.failure is Failure.UNSTABLE else result.status
    return replace(result, status=status, failure=exc.failure, reason=reason, measured={})


# What the audit fails: the model runs, but not as it claims to (the hint names the policy that lets it pass).
_AUDITED = (Failure.PROVIDER_FALLBACK, Failure.FAKE_INT8)
# A model that ends like this was loaded and has the right inputs, but can't be served so: no budget is met.
# On a machine that changed its speed under every reading it may be met or not.
_MISSES = (Failure.CRASH, Failure.OOM, Failure.TIMEOUT, Failure.WRONG_NUMERICS, *_AUDITED, Failure.UNSTABLE)

_STATUS = {
    Judgement.IN: Status.IN_BUDGET,
    Judgement.OUT: Status.NO_FIT,
    Judgement.UNDECIDED: Status.UNDECIDED,
    Judgement.NOT_MEASURABLE: Status.UNDECIDED,
}


def _open(model: Path | TorchSource, problem: Problem, work: Path) -> tuple[Path, Deployment | None]:
    """Model file (the export of a PyTorch model, under ``work``) and, for a bundle, its own deployment."""
    if isinstance(model, TorchSource):
        return resolve_model(replace(problem, model=model), work), None
    return _open_bundle(model)


def _open_bundle(model: Path) -> tuple[Path, Deployment | None]:
    """Model file and, for a bundle, its own deployment."""
    if not model.is_dir():
        return model, None
    described = model / "variant.json"
    try:
        raw = json.loads(described.read_text(encoding="utf-8"))
        return model / "model.onnx", Deployment.from_json(raw["deployment"])
    except OSError as exc:
        raise BadInput(f"{model} is a folder without variant.json.", "Name an ONNX file, or a run's best/.") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise BadInput(f"{described} is damaged: {exc}.", "Run the study again to write it anew.") from exc


def _same_inputs(info: ModelInfo, expected: ModelInfo) -> None:
    has, wants = {t.name for t in info.inputs}, {t.name for t in expected.inputs}
    if has != wants:
        raise BadInput(
            f"{info.path}: inputs are {', '.join(sorted(has))}, the spec's model has {', '.join(sorted(wants))}.",
            "Check a model with the same inputs, or write a spec for this one.",
        )


def _usable(deployment: Deployment, setup: Setup) -> None:
    """Refuse a bundle whose deployment the spec's target doesn't allow: its figures would be another machine's."""
    if deployment.provider not in setup.space.providers:
        reason = setup.space.left_out.get(deployment.provider, "the spec's target doesn't allow it")
        raise BadInput(f"the bundle runs on {deployment.provider}, which is not possible here: {reason}.")
    declared = plugins.providers()[deployment.provider].parameters
    for name, value in deployment.options:
        if name not in declared or not declared[name].contains(value):
            raise BadInput(
                f"the bundle sets {name}: {value!r}, which the provider {deployment.provider} doesn't have.",
                "Run the study again with this version.",
            )
    allowed = min(setup.problem.target.threads or setup.target.cores, setup.target.cores)
    if deployment.cores > allowed:
        raise BadInput(
            f"the bundle runs in {deployment.cores} threads; here {allowed} are allowed "
            f"(target.threads, and the machine's {setup.target.cores} cores).",
            "Check it against a spec, and on a machine, with as many.",
        )


def _takes_batch(info: ModelInfo, deployment: Deployment, setup: Setup) -> None:
    """Refuse a request size that isn't the spec's, or that the model can't take."""
    wants, batched, traffic = deployment.batch, setup.splits.validation.batched, setup.problem.traffic
    if deployment.serving_json() and not traffic.is_server:
        raise BadInput(
            "the bundle was made for server traffic (several instances, or a delay for batches); "
            f"the spec's traffic is {traffic.scenario}.",
            "Check it against a spec with the traffic it was made for.",
        )
    if traffic.is_server and info.batch not in (None, 1, setup.fixed_batch):
        raise BadInput(
            f"{info.path}: its batch size is fixed at {info.batch}, the spec's model's is not.",
            "Export it with a free batch dimension, or write a spec for this model.",
        )
    if setup.batches is not None and wants not in setup.batches:
        raise BadInput(
            f"the bundle takes {wants} samples a request; in the spec's traffic "
            f"({traffic.scenario}) a request holds {setup.batches[0]}.",
            "Check it against a spec with the traffic it was made for.",
        )
    if batched and info.batch is not None and info.batch != wants:
        raise BadInput(
            f"{info.path}: its batch size is fixed at {info.batch}; a request here holds {wants}.",
            "Export it with a free batch dimension, or write a spec for this model.",
        )
