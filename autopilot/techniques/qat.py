"""Quantization-aware training: int8 as static_int8 writes it, weights and ranges trained towards the float model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import Array, BuildContext, Slot, Technique
from autopilot.domain import Choice, Domain, Float, Int, Scalar
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.model import inspect
from autopilot.needs import Ask
from autopilot.recipe import Recipe
from autopilot.techniques import _onnx, _qdq, _static, _torch
from autopilot.techniques._calibration import batches
from autopilot.techniques._rules import already_quantized, integer_forms, no_static_kernels, sensible_numbers
from autopilot.techniques._text import first_line
from autopilot.temporary import temporary_folder
from autopilot.torch_model import INSTALL, missing
from autopilot.torch_model.train import Schedule, Trainer

if TYPE_CHECKING:
    from onnx import ModelProto

    from autopilot.target import Target
    from autopilot.torch_model.fake_quant import Fake

# Samples on which the file is compared with the module that was trained.
_COMPARED = 256
# By how much (norm of the difference to norm of the answers) they may differ: roundings that fall the other way
# add up over layers; a wrong range or a weight in the wrong place changes answers by as much as they are.
_APART = 0.3
# QuantizeLinear's parameters end so; the quantizer names them after the tensor.
_SCALE, _QUANTIZED = "_scale", "_quantized"


@dataclass(frozen=True, slots=True)
class _Learned:
    """What training may change: ``weights`` by the stored tensor's name, (lowest, highest) by the activation's."""

    weights: Mapping[str, Array]
    ranges: Mapping[str, tuple[float, float]]


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the trained model in QDQ form.

    The nodes and types are those of static_int8 with the same ``scope``; ranges start from calibration.

    Raises:
        Unsupported: torch or training data are missing, the model can't be quantized or converted, or training it
            changed nothing.
        VariantFailed: BUILD_ERROR or WRONG_NUMERICS, where the file doesn't answer as what was trained.
    """
    lacking = missing("torch", "onnxscript")
    if lacking is not None:
        raise Unsupported(lacking, INSTALL)
    prepared = _static.prepare(source, context)  # first: it refuses what is quantized already
    split = _torch.training_data(context)
    wanted = _static.choose(prepared, str(params["scope"]))
    prepared, calibration = _static.measured(prepared, wanted, int(str(params["samples"])), context)
    chosen = _static.extended(prepared, wanted)
    ranges = _static.only(prepared, chosen, calibration.ranges("minmax", 0.0))
    numbers = _qdq.Numbers.of({**params, "weights": "int8"})
    fake = _fake(_qdq.quantize(prepared.model, chosen, numbers, ranges), prepared.model, numbers)
    trainer = Trainer(split, fake.call, context.metric_is_classification, inspect(source).outputs[0].name)
    given = _learned(fake, numbers)
    steps = _train(source, fake, trainer, params, context)
    learned = _learned(fake, numbers)
    if _same(learned, given):
        raise Unsupported(
            f"its training changed no weight and no range ({steps} steps): the file would be static_int8's.",
            "Give it more epochs or training samples, or leave it out.",
        )
    ranges |= {name: span for name, span in learned.ranges.items() if name in ranges}
    _qdq.write(_qdq.quantize(_trained(prepared.model, learned), chosen, numbers, ranges), target_folder, context)
    _check_written(target_folder / _onnx.MODEL, fake, trainer, context)


def _fake(quantized: ModelProto, plain: ModelProto, numbers: _qdq.Numbers) -> Fake:
    """The module of ``quantized``, with the weights of ``plain``, from which it was made.

    Raises:
        Unsupported: it can't be converted.
    """
    from autopilot.torch_model.fake_quant import Weights, fake_quantized

    skeleton, names = _with_float_weights(quantized, plain)
    # What ONNX Runtime's quantizer uses of int8: it leaves out -128, and of 7 bits keeps -64 to 64.
    weights = Weights(names, numbers.per_channel, 64 if numbers.reduce_range else 127)
    with temporary_folder("qat") as folder:
        path = folder / _onnx.MODEL
        _onnx.save(skeleton, path)
        return fake_quantized(path, weights)


def _with_float_weights(quantized: ModelProto, plain: ModelProto) -> tuple[ModelProto, frozenset[str]]:
    """``quantized`` with the float tensors of ``plain`` in place of stored integers; the names of int8 ones."""
    import onnx

    out = onnx.ModelProto()
    out.CopyFrom(quantized)
    integers = {t.name: t for t in out.graph.initializer}
    floats = {t.name: t for t in plain.graph.initializer}
    there, int8, renamed = set(integers), set(), {}
    for node in [n for n in out.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in integers]:
        name = node.input[0].removesuffix(_QUANTIZED)
        if name not in floats:
            raise Unsupported(f"the quantizer stores {node.input[0]!r}, which no float tensor of the model is.")
        renamed[node.output[0]] = name
        if integers[node.input[0]].data_type == onnx.TensorProto.INT8:
            int8.add(name)
        if name not in there:
            out.graph.initializer.append(floats[name])
            there.add(name)
        out.graph.node.remove(node)
    for node in out.graph.node:
        node.input[:] = [renamed.get(i, i) for i in node.input]
    return out, frozenset(int8)


def _train(source: Path, fake: Fake, trainer: Trainer, params: Mapping[str, Scalar], context: BuildContext) -> int:
    """Train ``fake`` towards the answers of ``source``; the number of steps taken.

    Raises:
        Unsupported: either doesn't take the training samples in batches.
    """
    from autopilot.torch_model.fake_quant import as_targets

    epochs, minutes, rate = (float(str(params[k])) for k in ("epochs", "minutes", "learning_rate"))
    targets = as_targets(_answers(source, trainer, trainer.split.n, context), context.threads)
    if len(targets) != trainer.split.n:
        raise Unsupported("its answers are not one a training sample; it trains on samples in batches.")
    try:
        return trainer.fit(fake.module, targets, Schedule(int(epochs), 60.0 * minutes, rate), context.tell)
    except (RuntimeError, ValueError, IndexError, TypeError) as exc:
        raise Unsupported(f"the converted model can't be trained ({first_line(exc)}).") from exc


def _answers(path: Path, trainer: Trainer, count: int, context: BuildContext) -> Any:
    """What ``path`` answers to the first ``count`` training samples, float32, shape (count, ...)."""
    runner = _onnx.session(path, context.threads)
    return np.concatenate([runner.run([trainer.output], f)[0] for f in batches(runner, trainer.split, count)])


def _learned(fake: Fake, numbers: _qdq.Numbers) -> _Learned:
    """What ``fake`` holds now."""
    ranges = {n.removesuffix(_SCALE): fake.range(n, numbers.symmetric) for n in fake.activations}
    return _Learned({name: fake.stored(name) for name in fake.owners}, ranges)


def _same(a: _Learned, b: _Learned) -> bool:
    """Whether they are equal to the last bit."""
    return a.ranges == b.ranges and all(np.array_equal(value, b.weights[name]) for name, value in a.weights.items())


def _trained(model: ModelProto, learned: _Learned) -> ModelProto:
    """A copy of ``model`` with the trained weights."""
    import onnx
    from onnx import numpy_helper

    out = onnx.ModelProto()
    out.CopyFrom(model)
    for tensor in out.graph.initializer:
        if tensor.name in learned.weights:
            tensor.CopyFrom(numpy_helper.from_array(learned.weights[tensor.name], tensor.name))
    return out


def _check_written(path: Path, fake: Fake, trainer: Trainer, context: BuildContext) -> None:
    """Compare the file's answers with those of the module, on training samples, and tell how far they agree.

    Raises:
        VariantFailed: WRONG_NUMERICS, where they differ by more than roundings that fall the other way.
    """
    count = min(_COMPARED, trainer.split.n)
    got = _answers(path, trainer, count, context)
    taught = trainer.answers(fake.module, count).numpy()[: len(got)]
    got = got[: len(taught)]
    apart = float(np.linalg.norm(got - taught) / max(float(np.linalg.norm(taught)), 1e-12))
    text = f"the int8 file is {apart:.2%} off the trained module"
    if trainer.classes:
        same = float((got.argmax(-1) == taught.argmax(-1)).mean())
        text += f" and names the same class in {same:.1%} of {len(got)} samples"
    context.tell(text)
    if not apart <= _APART:
        raise VariantFailed(Failure.WRONG_NUMERICS, f"{text}; at most {_APART:.0%} would be rounding.")


def prefer(target: Target) -> tuple[Mapping[str, Scalar], ...]:
    """The form that this provider multiplies fast, a scale a channel."""
    return tuple({**_own(form), "per_channel": True} for form in integer_forms(target))


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """Values with fast kernels on this CPU; see ``sensible_numbers``."""
    return sensible_numbers(target)


def _own(form: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Without the type of weights, which are int8 here."""
    return {k: v for k, v in form.items() if k in PARAMETERS}


def normalise(params: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """Unsigned activations are never symmetric; without training its settings don't matter."""
    out = _static.normalise_numbers(params)
    if not out.get("epochs", 1):
        out |= {k: PARAMETERS[k].default for k in ("minutes", "learning_rate")}
    return out


def work(params: Mapping[str, Scalar]) -> float:
    """Each epoch rounds every activation: longer than a plain one."""
    return 3.0 + 10.0 * int(str(params["epochs"]))


def available(target: Target) -> str | None:
    """None, or which package or kernel is missing."""
    return missing("torch", "onnxscript") or no_static_kernels(target)


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Integer weights can't be trained."""
    return already_quantized(earlier)


PARAMETERS: Mapping[str, Domain] = {
    "activations": Choice(("uint8", "int8")),
    "per_channel": Choice((True, False)),
    "symmetric": Choice((False, True)),
    "reduce_range": Choice((False, True)),
    "samples": Choice((128, 32, 512)),
    "scope": Choice(("weighted", "attention", "all")),
    "epochs": Int(1, 30, 3),
    "minutes": Float(0.1, 60.0, 3.0),
    "learning_rate": Float(1e-6, 1e-2, 1e-4, log=True),
}

TECHNIQUE = Technique(
    name="qat",
    slot=Slot.PRECISION,
    version=1,
    parameters=PARAMETERS,
    apply=apply,
    summary="static int8 whose weights and ranges are trained towards the float model (needs torch and data.train)",
    libraries=("torch", "onnx", "onnxruntime", "onnxscript"),
    needs_calibration=True,
    needs_training=True,
    claims_int8=True,
    asks=(Ask("int8"),),
    on_by_default=False,
    available=available,
    prefer=prefer,
    normalise=normalise,
    sensible=sensible,
    refuses=refuses,
    work=work,
)
