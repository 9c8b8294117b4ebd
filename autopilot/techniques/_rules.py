"""What precision techniques share: when they can't follow, and what the CPU does well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopilot.domain import Scalar
from autopilot.recipe import Recipe

if TYPE_CHECKING:
    from autopilot.target import Target

_CHANGES_PRECISION = frozenset(
    {"dynamic_int8", "static_int8", "mixed_precision", "mixed_int8", "weight_only", "float16", "bfloat16"}
)


def already_quantized(earlier: Recipe) -> str | None:
    """The reason why no precision technique can follow ``earlier``, or None."""
    before = [s.technique for s in earlier.steps if s.technique in _CHANGES_PRECISION]
    return f"{before[0]} has changed the precision already" if before else None


def int8_products_saturate(target: Target) -> bool:
    """True on x86 without VNNI or AMX: there 8-bit products are summed in 16 bits and may saturate.

    See "When and why do I need to use U8S8 or reduce_range" in ONNX Runtime's quantization guide.
    """
    return target.has("avx2") and not target.int8_dot


def sensible_numbers(target: Target) -> dict[str, tuple[Scalar, ...]]:
    """Integer types with fast kernels in ONNX Runtime's CPU provider on this CPU.

    On x86 signed activations were seen slower than float on every model tried (0.9 times on a CNN),
    and a reduced range only helps where 8-bit products saturate.
    """
    out: dict[str, tuple[Scalar, ...]] = {}
    if target.has("avx2"):
        out["activations"] = ("uint8",)
    if not int8_products_saturate(target):
        out["reduce_range"] = (False,)
    return out
