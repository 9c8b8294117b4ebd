"""Structured channel pruning: whole channels removed, statistics settled, then trained towards the model as given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Domain, Float, Int, Scalar
from autopilot.errors import Unsupported
from autopilot.model import inspect
from autopilot.needs import Lack, Need
from autopilot.recipe import Recipe
from autopilot.techniques import _prune_latency, _torch
from autopilot.techniques._rules import already_quantized
from autopilot.torch_model import missing
from autopilot.torch_model.heldout import divide
from autopilot.torch_model.prune import Plan, Pruner
from autopilot.torch_model.train import Schedule, Trainer
from autopilot.torch_model.trials import parameters

if TYPE_CHECKING:
    from torch import nn

    from autopilot.target import Target

# Samples on which the change of the answers by each group is measured.
_JUDGED_ON = 256


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the pruned and trained model.

    ``params``: ratio, importance, scope, round_to; epochs, minutes and learning_rate of the training after.

    Raises:
        Unsupported: torch or training data are missing, the model can't be converted or exported, or nothing of
            it can be pruned.
    """
    split = _torch.training_data(context)
    start = _torch.module_of(source, context, "torch_pruning")
    output = inspect(source).outputs[0].name
    # Not with what is held out from a distillation after it, which would find the answers too good to get better.
    trainer = Trainer(split, start.call, context.metric_is_classification, output, divide(split)[0])
    context.tell("pruning: how much each group of channels matters")
    pruned = _pruned(source, start, trainer, _plan(params), context)
    trainer.settle(pruned)
    share = parameters(pruned) / parameters(start.module)
    epochs = int(str(params["epochs"]))
    context.tell(f"pruned to {share:.0%} of the parameters")
    if epochs:
        schedule = Schedule(epochs, 60.0 * float(str(params["minutes"])), float(str(params["learning_rate"])))
        trainer.fit(pruned, trainer.answers(start.module), schedule, context.tell)
        trainer.settle(pruned)
    _torch.write(pruned, start.call, split, target_folder / "model.onnx", context)


def _pruned(source: Path, start: _torch.Source, trainer: Trainer, plan: Plan, context: BuildContext) -> nn.Module:
    """A pruned copy of the module, not trained."""
    pruner = _pruner(trainer)
    if plan.scope != "latency":
        return pruner.prune(start.module, plan)
    trials = pruner.open(start.module, plan)
    return _prune_latency.pruned_for_latency(trials, start.call, trainer.split, source, context)


def _plan(params: Mapping[str, Scalar]) -> Plan:
    ratio, round_to = float(str(params["ratio"])), int(str(params["round_to"]))
    return Plan(ratio, str(params["importance"]), str(params["scope"]), round_to)


def _pruner(trainer: Trainer) -> Pruner:
    """Judges by the first training samples; traces the module with two of them."""
    plain, keywords = trainer.call.arguments(trainer.split.feed([0, 1]))
    if plain and keywords:
        raise Unsupported("its inputs are passed partly by name, which Torch-Pruning can't trace.")

    return Pruner(
        keywords or plain,
        lambda module: trainer.answers(module, _JUDGED_ON),
        trainer.shapes,
        trainer.settle,
        trainer.gradients,
    )


def normalise(params: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """Without training its settings don't matter."""
    if params["epochs"]:
        return params
    return {**params, "minutes": PARAMETERS["minutes"].default, "learning_rate": PARAMETERS["learning_rate"].default}


def prefer(target: Target) -> tuple[Mapping[str, Scalar], ...]:
    """A third of the milliseconds first: what a small CNN gave up and got back within an epoch or two."""
    first: Mapping[str, Scalar] = {"scope": "latency", "importance": "taylor", "round_to": 16}
    return tuple({**first, "ratio": ratio} for ratio in (0.3, 0.5))


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """Batch norms are folded away in most files; int8 kernels, which come after, work on 16 channels at once."""
    return {"importance": ("taylor", "magnitude"), "round_to": (16, 8)}


def work(params: Mapping[str, Scalar]) -> float:
    """A table of widths takes as long as some epochs, one pass over the groups as one."""
    return 5.0 * int(str(params["epochs"])) + (20.0 if params["scope"] == "latency" else 5.0)


def available(target: Target) -> str | None:
    """None, or which package is missing."""
    return missing("torch", "torch_pruning", "onnxscript")


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Integer weights can't be trained."""
    late = already_quantized(earlier)
    return f"{late}; pruning comes first" if late else None


PARAMETERS: Mapping[str, Domain] = {
    "ratio": Float(0.05, 0.8, 0.3),
    "importance": Choice(("taylor", "magnitude", "bn_scale")),
    "scope": Choice(("global", "isomorphic", "uniform", "sensitive", "latency")),
    # Kernels work on 8 or 16 channels at once: other widths were seen slower than wider ones.
    "round_to": Choice((8, 4, 16, 1)),
    "epochs": Int(0, 30, 3),
    "minutes": Float(0.1, 60.0, 3.0),
    "learning_rate": Float(1e-5, 1e-2, 1e-3, log=True),
}

TECHNIQUE = Technique(
    name="prune_channels",
    slot=Slot.STRUCTURE,
    version=2,
    parameters=PARAMETERS,
    apply=apply,
    summary="whole channels removed, then trained towards the model as given (needs torch and data.train)",
    libraries=("torch", "torch-pruning", "onnx", "onnxruntime", "onnxscript"),
    needs_training=True,
    machine_bound=True,
    needs=(Need(Lack.TRAINING_DATA),),
    on_by_default=False,
    available=available,
    prefer=prefer,
    sensible=sensible,
    normalise=normalise,
    refuses=refuses,
    work=work,
)
