"""Distillation: a smaller student, or what pruning left, learns to answer as the model as given does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.artifact import sha256_file
from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Domain, Float, Int, Scalar
from autopilot.errors import Unsupported
from autopilot.model import inspect
from autopilot.needs import Lack, Need
from autopilot.recipe import Recipe, digest
from autopilot.techniques import _students, _teacher, _torch
from autopilot.techniques._rules import already_quantized
from autopilot.torch_model import missing
from autopilot.torch_model.distil import HIGHEST, Distiller, Trained
from autopilot.torch_model.heldout import divide
from autopilot.torch_model.hidden import Hidden
from autopilot.torch_model.lesson import Lesson, Plan
from autopilot.torch_model.losses import LOSSES
from autopilot.torch_model.train import Trainer

if TYPE_CHECKING:
    from torch import nn

    from autopilot.data import Split
    from autopilot.target import Target

# Raise it when checkpoints of an earlier version must not be gone on with.
_VERSION = 1


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the trained student.

    ``params``: student, keep, loss, hidden, mixup, effort, learning_rate, batch; see ``PARAMETERS``.

    Raises:
        Unsupported: torch or training data are missing, the model can't be converted or exported, there is no such
            student of it, or the step changed nothing.
        VariantFailed: TIMEOUT where the study's time is up; what was trained so far is kept.
    """
    split = _torch.training_data(context)
    start = _torch.module_of(source, context)
    output = inspect(source).outputs[0].name
    trainer = Trainer(split, start.call, context.metric_is_classification, output)
    kind, keep = str(params["student"]), float(str(params["keep"]))
    context.tell(f"distill: making the student ({kind})")
    origin = _students.origin(start.module, context)
    made_of = digest([_VERSION, sha256_file(source), origin, split.digest, kind, keep])
    kept = context.scratch / "students" / f"{made_of[:32]}.safetensors"
    student = _students.make(kind, keep, start, trainer, kept=kept, context=context)
    trainer = Trainer(split, student.call, context.metric_is_classification, output)
    hidden = _hidden(float(str(params["hidden"])), student, trainer, source, context)
    lesson = _lesson(output, split, source, context)
    distiller = _distiller(source, {**params, "layout": _students.layout(student.module)}, trainer, lesson, context)
    if params["mixup"]:
        distiller = replace(distiller, teacher=_mixing_teacher(trainer, source, context))
    trained = distiller.train(student.module, int(str(params["effort"])), hidden)
    if not trained.changed:
        _refuse_or_tell(trained, params, distiller.teaching.teacher_score(), context)
    _torch.write(student.module, student.call, split, target_folder / "model.onnx", student.recorded(context))


def _refuse_or_tell(trained: Trained, params: Mapping[str, Scalar], teacher: float, context: BuildContext) -> None:
    """Deal with a training that left the weights as they were.

    A student that is what the step before left is then that step's file again: a recipe that names both would be
    credited with work that nobody did. One that lacks blocks or channels, or is a network of its own, is another
    network than the model as given all the same, and its own figures decide.

    Raises:
        Unsupported: the step changed nothing.
    """
    effort, rate = int(str(params["effort"])), float(str(params["learning_rate"]))
    # A checkpoint of an earlier version doesn't tell what was tried.
    best = f"{trained.tried:.2%} at best, " if math.isfinite(trained.tried) else ""
    # With effort and rate in the sentence, which is what such refusals are compared by, others stay worth a try.
    how = (
        f"at effort {effort} and learning rate {rate:g} every epoch scored below the network it started from: held-out "
        f"{best}{trained.score:.2%} before, teacher {teacher:.2%}"
    )
    if params["student"] == "same":
        hint = "Allow more effort, which goes on from here, or another learning rate."
        raise Unsupported(f"it changed nothing: {how}.", hint)
    context.tell(f"distill: the student stays untrained; {how}")


def _lesson(output: str, split: Split, source: Path, context: BuildContext) -> Lesson:
    teacher = context.model or source
    name = inspect(teacher).outputs[0].name
    taught = _teacher.answers(teacher, name, split, context, classes=context.metric_is_classification)
    return Lesson(_students.tensor(taught), *divide(split))


def _hidden(
    weight: float, student: _students.Made, trainer: Trainer, source: Path, context: BuildContext
) -> Hidden | None:
    """Hidden states to learn from, where that is wanted."""
    if weight == 0.0:
        return None
    teacher = _torch.module_of(context.model or source, context).module
    pairs = _students.pairs(student, teacher)
    if not pairs:
        raise Unsupported("the student has no layers that its teacher has too: hidden states can't be compared.")
    hidden = Hidden(teacher, pairs)
    hidden.prepare(student.module, trainer.shapes)
    return hidden


def _mixing_teacher(trainer: Trainer, source: Path, context: BuildContext) -> nn.Module:
    """The model as given, to be asked about samples that nobody has.

    Raises:
        Unsupported: an input is of whole numbers, between which there is nothing.
    """
    plain, keywords = trainer.call.arguments(trainer.split.feed([0]))
    if not all(value.is_floating_point() for value in (*plain, *keywords.values())):
        raise Unsupported("it has inputs of whole numbers, which can't be mixed.", "Leave mixup at 0.")
    return _torch.module_of(context.model or source, context).module.eval()


def _distiller(
    source: Path, params: Mapping[str, Scalar], trainer: Trainer, lesson: Lesson, context: BuildContext
) -> Distiller:
    """Checkpoints are keyed by all that the training depends on, but for how far it goes."""
    given = {name: value for name, value in params.items() if name != "effort"}
    model = sha256_file(context.model or source)
    code = _students.own_code_digest(context) if params["student"] == "code" else None
    key = digest([_VERSION, sha256_file(source), model, trainer.split.digest, trainer.classes, given, code])
    plan = Plan(
        str(params["loss"]),
        float(str(params["learning_rate"])),
        int(str(params["batch"])),
        float(str(params["hidden"])),
        float(str(params["mixup"])),
    )
    path = context.scratch / "distill" / key[:32]
    return Distiller(trainer, lesson, plan, path, lambda: context.left_s, context.tell)


def normalise(params: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """How much is kept matters of a smaller copy only; of its own code a student says it itself."""
    scaled = params["student"] in ("depth", "width")
    usual: dict[str, Any] = {} if scaled else {"keep": PARAMETERS["keep"].default}
    if params["student"] == "code":
        usual["hidden"] = 0.0
    return {**params, **usual}


def work(params: Mapping[str, Scalar]) -> float:
    """Each rung doubles the epochs; a smaller student takes less for each, asking the teacher on the way more."""
    kept = 1.0 if params["student"] in ("same", "code") else float(str(params["keep"]))
    asked = 0.5 if params["mixup"] else 0.0
    return 5.0 + 5.0 * (kept + asked) * 2.0 ** int(str(params["effort"]))


def available(target: Target) -> str | None:
    """None, or which package is missing."""
    return missing("torch", "onnxscript", "safetensors")


def prefer(target: Target) -> tuple[Mapping[str, Scalar], ...]:
    """Short trainings of both kinds of smaller copies: the search goes on with what promises most."""
    return (
        {"student": "depth", "keep": 0.5, "effort": 1},
        {"student": "width", "keep": 0.5, "effort": 1},
        {"student": "depth", "keep": 0.35, "effort": 1},
        {"student": "same", "effort": 1},
        {"student": "same", "effort": 3},
    )


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """What is worth trying on any machine."""
    return {
        "student": ("depth", "width", "same"),
        "keep": (0.2, 0.35, 0.5, 0.65, 0.8),
        "effort": tuple(range(HIGHEST)),
        "loss": tuple(LOSSES),
        "hidden": (0.0, 1.0),
        "mixup": (0.0, 0.5),
        "batch": (64,),
        "learning_rate": (3e-4, 1e-3),
    }


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Integer weights can't be trained, and what was pruned is a student already."""
    late = already_quantized(earlier)
    if late:
        return f"{late}; distillation comes first"
    if earlier.steps and params["student"] != "same":
        return f"after {earlier.steps[-1].technique} the student is what that left: student same"
    if not earlier.steps and params["student"] == "same":
        return "its student would be the model as given, which has nothing to gain: prune it first"
    return None


PARAMETERS: Mapping[str, Domain] = {
    "student": Choice(("depth", "width", "same", "code")),
    "keep": Float(0.1, 0.9, 0.5),
    "loss": Choice(tuple(LOSSES)),
    "hidden": Float(0.0, 10.0, 0.0),
    "mixup": Float(0.0, 2.0, 0.0),
    "effort": Int(0, HIGHEST, 1),
    "learning_rate": Float(1e-5, 1e-2, 5e-4, log=True),
    "batch": Int(8, 512, 64),
}

TECHNIQUE = Technique(
    name="distill",
    slot=Slot.TRAINING,
    version=2,
    parameters=PARAMETERS,
    apply=apply,
    summary="a smaller copy, or what pruning left, learns from the model as given (needs torch and data.train)",
    libraries=("torch", "torch-pruning", "safetensors", "onnx", "onnxscript", "onnxruntime"),
    needs_training=True,
    needs=(Need(Lack.TRAINING_DATA),),
    on_by_default=False,
    available=available,
    prefer=prefer,
    sensible=sensible,
    normalise=normalise,
    refuses=refuses,
    work=work,
    continues="effort",
)
