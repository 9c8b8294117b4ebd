"""int8 by neural-compressor: PyTorch's own quantization (PT2E), written as an ONNX file in QDQ form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autopilot.contracts import Array, BuildContext, Slot, Technique
from autopilot.domain import Choice, Domain, Scalar
from autopilot.errors import Failure, ModelError, Unsupported, VariantFailed
from autopilot.needs import Ask, Lack, Need
from autopilot.recipe import Recipe
from autopilot.techniques import _onnx, _torch
from autopilot.techniques._rules import already_quantized, no_static_kernels
from autopilot.torch_model import export_onnx, missing

if TYPE_CHECKING:
    from autopilot.data import Split
    from autopilot.target import Target
    from autopilot.torch_model.export import Exported
    from autopilot.torch_model.inc import Example

# Of the extra; neural-compressor alone brings neither torch nor torchao, and its torch part doesn't import then.
_LIBRARIES = ("torch", "onnxscript", "neural_compressor", "torchao")
# From a clone. With no constraints, pip on Linux takes a CUDA build of several GB.
_INSTALL = "pip install -c constraints.txt -e '.[torch,inc]'"
# Samples that the program is traced with: two, since torch takes one for a constant.
_TRACED = 2
# Samples on which the file is compared with what PyTorch answers.
_COMPARED = 16
# By how much (norm of the difference to norm of the answers) they may differ: roundings that fall the other way
# add up over layers (0.004 was seen on an encoder); a wrong scale changes answers by as much as they are.
_APART = 0.3
_ALGORITHMS = ("static", "dynamic", "smooth_quant")


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the model in QDQ form, with ranges measured on calibration data.

    The module is made of the ONNX file itself, whatever that came of: the result depends on nothing else.

    Raises:
        Unsupported: a package or calibration data are missing, the model is quantized already or can't be
            converted, traced or exported, or neural-compressor's ``algorithm`` doesn't work here or leaves all of it
            in float.
        VariantFailed: WRONG_NUMERICS where the file answers otherwise than PyTorch.
    """
    from autopilot.torch_model.inc import Settings, quantized

    model = _onnx.load(source)
    _onnx.refuse_quantized(model)
    _onnx.refuse_half(model)
    lacking = missing(*_LIBRARIES)
    if lacking is not None:
        raise Unsupported(lacking, f"Run {_INSTALL} in a clone.")
    split = _calibration(context)
    start = _torch.converted(source, split, context)
    settings = Settings(str(params["algorithm"]), str(params["calibration"]), bool(params["per_channel"]))
    target = target_folder / _onnx.MODEL
    runner = _onnx.session(source, context.threads)
    fixed = _onnx.fixed_batch(runner, split)
    free = fixed is None and _onnx.takes_batches(runner, split)
    size = _TRACED if free else fixed or 1
    context.tell(f"neural_compressor: {settings.algorithm}, ranges by {settings.observer}")
    feeds = tuple(_onnx.feeds(runner, context, int(str(params["samples"]))))
    program, call = quantized(start.module, start.call, _example(split, size, free=free), feeds, settings)
    try:
        count = _COMPARED if free else size
        written = export_onnx(program, _rows(split, count), _per_sample(split), target, call=call)
    except ModelError as exc:
        raise Unsupported(
            f"what neural-compressor's {settings.algorithm} makes has no ONNX form: {exc.message}"
        ) from exc
    _onnx.refuse_float(_onnx.load(target))
    _check_written(target, written)


def _calibration(context: BuildContext) -> Split:
    """The calibration samples.

    Raises:
        Unsupported: there are none, or they don't come in batches.
    """
    if context.calibration is None:
        raise Unsupported("static quantization needs calibration data.", "Give data.train or more validation samples.")
    if not context.calibration.batched:
        raise Unsupported("neural-compressor traces the model with samples in batches, and data.batched is false.")
    return context.calibration


def _example(split: Split, size: int, *, free: bool) -> Example:
    from autopilot.torch_model.inc import Example

    return Example(_rows(split, size), _per_sample(split) if free else ())


def _rows(split: Split, count: int) -> dict[str, Array]:
    """The first ``count`` samples, from the first on again where there are fewer."""
    return split.feed([i % split.n for i in range(count)])


def _per_sample(split: Split) -> tuple[str, ...]:
    """Inputs whose first dimension is the sample."""
    one, two = _rows(split, 1), _rows(split, 2)
    return tuple(n for n in one if two[n].shape[:1] != one[n].shape[:1])


def _check_written(path: Path, written: Exported) -> None:
    """Compare the file's answers with those of the program that it was written from.

    Raises:
        VariantFailed: WRONG_NUMERICS, where they differ by more than roundings that fall the other way.
    """
    runner = _onnx.session(path)
    for name, expected in written.expected.items():
        (got,) = runner.run([name], _onnx.feed_for(runner, written.feed))
        if got.shape != expected.shape or got.dtype != expected.dtype:
            what = f"{expected.dtype}{list(expected.shape)} became {got.dtype}{list(got.shape)}"
            raise VariantFailed(Failure.WRONG_NUMERICS, f"output {name!r}: {what}.")
        apart = _apart(expected, got)
        if not apart <= _APART:
            what = f"output {name!r} is {apart:.1%} off what PyTorch answers; at most {_APART:.0%} would be rounding"
            raise VariantFailed(Failure.WRONG_NUMERICS, f"{what}.")


def _apart(expected: Array, got: Array) -> float:
    """Norm of the difference over norm of ``expected``; NaN where the file answers so."""
    a, b = expected.astype(np.float64), got.astype(np.float64)
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-12))


def available(target: Target) -> str | None:
    """None, or why integer products of this form can't be fast on this provider."""
    if target.provider.startswith("tensorrt"):
        return "TensorRT takes zero points of 0 only; neural-compressor's unsigned activations have others"
    return no_static_kernels(target)


def prefer(target: Target) -> tuple[Mapping[str, Scalar], ...]:
    """A scale a channel, with both ways to take the ranges of activations."""
    return (
        {"algorithm": "static", "calibration": "minmax", "per_channel": True},
        {"algorithm": "static", "calibration": "kl", "per_channel": True},
    )


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """The one algorithm that makes a file for ONNX Runtime; why the others don't stands in docs/techniques.md."""
    return {"algorithm": ("static",)}


def normalise(params: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """Ranges that are taken while running need no way to take them before."""
    if params["algorithm"] != "dynamic":
        return params
    return {**params, "calibration": "minmax", "samples": PARAMETERS["samples"].default}


def work(params: Mapping[str, Scalar]) -> float:
    """torch traces the model twice and exports it."""
    return 3.0


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """It starts from floats, and from operators that PyTorch has."""
    late = already_quantized(earlier)
    if late is None and any(step.technique == "fuse" for step in earlier.steps):
        return "operators that fuse writes don't become PyTorch's"
    return late


PARAMETERS: Mapping[str, Domain] = {
    "algorithm": Choice(_ALGORITHMS),
    # Of activations; weights always take their largest value.
    "calibration": Choice(("minmax", "kl")),
    "per_channel": Choice((True, False)),
    "samples": Choice((128, 32, 512)),
}

TECHNIQUE = Technique(
    name="neural_compressor",
    slot=Slot.PRECISION,
    version=1,
    parameters=PARAMETERS,
    apply=apply,
    summary="int8 by neural-compressor: PyTorch's quantization, written for ONNX Runtime (needs the extra inc)",
    libraries=("torch", "torchao", "neural-compressor", "onnx", "onnxruntime", "onnxscript"),
    needs=tuple(Need(Lack.LIBRARY, name, _INSTALL) for name in _LIBRARIES),
    needs_calibration=True,
    claims_int8=True,
    asks=(Ask("int8"),),
    on_by_default=False,
    available=available,
    prefer=prefer,
    sensible=sensible,
    normalise=normalise,
    refuses=refuses,
    work=work,
)
