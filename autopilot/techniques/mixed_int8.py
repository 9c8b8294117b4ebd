"""Mixed precision: static int8 with the most sensitive groups of layers left in float."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.contracts import BuildContext, Slot, Technique
from autopilot.domain import Choice, Int, Scalar
from autopilot.errors import Unsupported
from autopilot.needs import Ask
from autopilot.recipe import Recipe
from autopilot.techniques import _qdq, _sensitivity, _static
from autopilot.techniques._rules import already_quantized, no_static_kernels, sensible_numbers

if TYPE_CHECKING:
    from autopilot.target import Target

# One calibration serves the ranking and every number of float groups.
_SAMPLES = 128
_PERCENTILE = 99.999


def apply(source: Path, target_folder: Path, params: Mapping[str, Scalar], context: BuildContext) -> None:
    """Write the model in QDQ form with ``float_groups`` groups as they were.

    The ranking is measured at the first call for a model and these types, and kept as
    ``sensitivity/*.json`` in ``context.scratch``.

    Raises:
        Unsupported: what static int8 can't take either, or no group would be left to quantize.
        VariantFailed: BUILD_ERROR, where the quantizer or ONNX Runtime refuses the result.
    """
    prepared = _static.prepare(source, context, smooth=float(params["smooth"] or 0.0))
    prepared, calibration = _static.measured(prepared, prepared.weighted, _SAMPLES, context)
    keep = int(params["float_groups"] or 0)
    groups = len(_sensitivity.group(prepared.model, prepared.weighted))
    if groups == 1:
        # One wording for every number of groups: a search gives up on all of them after two.
        raise Unsupported("there is one group of layers only: with it in float nothing is left to quantize.")
    if keep >= groups:
        raise Unsupported(f"{keep} groups of {groups} in float leave nothing to quantize.")
    ranges = calibration.ranges(str(params["calibration"]), _PERCENTILE)
    numbers = _qdq.Numbers.of(params)
    table = _sensitivity.rank(prepared, numbers, ranges, context)
    quantized = [table.groups[i].nodes for i in table.order(str(params["rank"]))[keep:]]
    chosen = _static.extended(prepared, [name for nodes in quantized for name in nodes])
    model = _qdq.quantize(prepared.model, chosen, numbers, _static.only(prepared, chosen, ranges))
    _qdq.write(model, target_folder, context)


def prefer(target: Target) -> tuple[Mapping[str, Scalar], ...]:
    """One or two groups usually carry most of the loss."""
    first: Mapping[str, Scalar] = _static.preferred_numbers(target)
    return tuple({**first, "per_channel": True, "rank": "divergence_per_ms", "float_groups": k} for k in (1, 2, 4))


def sensible(target: Target) -> Mapping[str, tuple[Scalar, ...]]:
    """Values with fast kernels on this CPU; see ``sensible_numbers``."""
    return sensible_numbers(target)


def normalise(params: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """Fix what doesn't matter or has no kernel, as static_int8 does."""
    return _static.normalise_numbers(params)


def refuses(earlier: Recipe, params: Mapping[str, Scalar]) -> str | None:
    """Another change of precision before this one leaves no float weights."""
    return already_quantized(earlier)


TECHNIQUE = Technique(
    name="mixed_int8",
    slot=Slot.PRECISION,
    version=1,
    parameters={
        "float_groups": Int(1, 8, 2),
        "rank": Choice(("divergence_per_ms", "divergence")),
        "activations": Choice(("uint8", "int8")),
        "weights": Choice(("int8", "uint8")),
        "per_channel": Choice((True, False)),
        "symmetric": Choice((False, True)),
        "reduce_range": Choice((False, True)),
        "calibration": Choice(("minmax", "percentile")),
        "smooth": _static.SMOOTH,
    },
    apply=apply,
    summary="static int8 with the k most sensitive groups of layers in float",
    needs_calibration=True,
    claims_int8=True,
    asks=(Ask("int8"),),
    available=no_static_kernels,
    machine_bound=True,
    prefer=prefer,
    normalise=normalise,
    sensible=sensible,
    refuses=refuses,
)
