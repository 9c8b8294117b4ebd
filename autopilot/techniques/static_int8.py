"""Static int8: weights and activations as integers, with ranges measured on calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Scalar
from autopilot.needs import Ask
from autopilot.recipe import Recipe
from autopilot.techniques import _qdq, _static
from autopilot.techniques._rules import already_quantized, integer_forms, no_static_kernels, sensible_numbers

if TYPE_CHECKING:
    from autopilot.target import Target


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the model in QDQ form; ``params`` as declared in TECHNIQUE.

    Nodes inside If and Loop stay as they are.

    Raises:
        Unsupported: quantized already, nothing to quantize or to smooth, or too few calibration samples.
        VariantFailed: BUILD_ERROR, where the quantizer or ONNX Runtime refuses the result; WRONG_NUMERICS, where
            smoothing changes answers.
    """
    prepared = _static.prepare(source, context, smooth=float(params["smooth"] or 0.0))
    wanted = _static.choose(prepared, str(params["scope"]), embeddings=bool(params["embeddings"]))
    prepared, calibration = _static.measured(prepared, wanted, int(params["samples"] or 0), context)
    chosen = _static.extended(prepared, wanted)
    ranges = calibration.ranges(str(params["calibration"]), float(params["percentile"] or 0.0))
    needed = _static.only(prepared, chosen, ranges)
    model = _qdq.quantize(prepared.model, chosen, _qdq.Numbers.of(params), needed)
    _qdq.write(model, target_folder, context)


def prefer(target: Target) -> tuple[Mapping[str, Scalar], ...]:
    """What is known to be fast and right on this CPU and provider, best first."""
    first, *others = integer_forms(target)
    return (
        {**first, "per_channel": True},
        *({**other, "per_channel": True} for other in others),
        {**first, "per_channel": False},
        {**first, "per_channel": True, "calibration": "percentile", "percentile": 99.999},
        {**first, "per_channel": True, "smooth": 0.8},
        {**first, "per_channel": True, "embeddings": True},
    )


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """Values with fast kernels on this CPU; see ``sensible_numbers``."""
    return sensible_numbers(target)


def normalise(params: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """Fix what doesn't matter given the others: the percentile of other methods; see ``normalise_numbers``."""
    out = _static.normalise_numbers(params)
    if out.get("calibration") != "percentile" and "percentile" in out:
        out["percentile"] = _PERCENTILES.default
    if out.get("scope") == "all" and "embeddings" in out:
        out["embeddings"] = False  # they are among all
    return out


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Another change of precision before this one leaves no float weights."""
    return already_quantized(earlier)


_PERCENTILES = Choice((99.99, 99.999, 99.9))

TECHNIQUE = Technique(
    name="static_int8",
    slot=Slot.PRECISION,
    version=1,
    parameters={
        "activations": Choice(("uint8", "int8")),
        "weights": Choice(("int8", "uint8")),
        "per_channel": Choice((True, False)),
        # Of activations; int8 weights always are.
        "symmetric": Choice((False, True)),
        "reduce_range": Choice((False, True)),
        "calibration": Choice(("minmax", "percentile", "entropy")),
        "percentile": _PERCENTILES,
        "samples": Choice((128, 32, 512)),
        # weighted: Conv, Gemm, MatMul with a stored weight and what lies between them;
        # attention: products of two activations too; all: whatever ONNX Runtime can quantize.
        "scope": Choice(("weighted", "attention", "all")),
        "embeddings": Choice((False, True)),
        "smooth": _static.SMOOTH,
    },
    apply=apply,
    summary="int8 weights and activations in QDQ form, ranges from calibration data",
    needs_calibration=True,
    claims_int8=True,
    asks=(Ask("int8"),),
    available=no_static_kernels,
    prefer=prefer,
    normalise=normalise,
    sensible=sensible,
    refuses=refuses,
)
