"""What precision techniques share: when they can't follow, and what the CPU does well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopilot.domain import Scalar
from autopilot.recipe import Recipe

if TYPE_CHECKING:
    from autopilot.target import Target

_CHANGES_PRECISION = frozenset(
    {
        "dynamic_int8",
        "static_int8",
        "mixed_precision",
        "mixed_int8",
        "qat",
        "neural_compressor",
        "weight_only",
        "float16",
        "bfloat16",
    }
)

_TENSORRT = ("tensorrt", "tensorrt_rtx")


def already_quantized(earlier: Recipe) -> str | None:
    """The reason why no precision technique can follow ``earlier``, or None."""
    before = [s.technique for s in earlier.steps if s.technique in _CHANGES_PRECISION]
    return f"{before[0]} has changed the precision already" if before else None


def int8_products_saturate(target: Target) -> bool:
    """True on x86 without VNNI or AMX: there 8-bit products are summed in 16 bits and may saturate.

    See "When and why do I need to use U8S8 or reduce_range" in ONNX Runtime's quantization guide.
    """
    return target.has("avx2") and not target.int8_dot


def integer_forms(target: Target) -> tuple[dict[str, Scalar], ...]:
    """Types of activations and weights that ``target``'s provider multiplies fast, best first.

    The one place where a form is paired with a provider: what known-good recipes begin with.

    - ONNX Runtime on x86: unsigned activations with signed weights, the pair that VNNI and AMX multiply; without
      them such products saturate, so weights get 7 bits. On ARM: both signed.
    - OpenVINO on x86 takes both. Seen on AVX512-VNNI, one core: an encoder 2.7 ms unsigned, 2.4 ms symmetric
      (3.5 and 7.8 ms on the CPU provider), a CNN 0.12 and 0.15 ms (0.11 and 0.30 ms).
    - TensorRT wants explicit QDQ with both signed and zero points of 0.
    """
    signed: dict[str, Scalar] = {"activations": "int8", "weights": "int8", "symmetric": True}
    if target.provider in _TENSORRT or target.machine.lower() in ("aarch64", "arm64"):
        return (signed,)
    narrow = int8_products_saturate(target)
    unsigned: dict[str, Scalar] = {"activations": "uint8", "weights": "int8", "reduce_range": narrow}
    if target.provider == "openvino":
        return unsigned, {**signed, "reduce_range": narrow}
    return (unsigned,)


# What comes of QDQ (static) and of MatMulInteger (dynamic) where no integer kernels take them.
_FLOAT_QDQ = {
    "cuda": "ONNX Runtime's CUDA provider has no int8 kernels: it would multiply in float, after converting",
    "torch_compile": "torch_compile takes models in float: quantized operators don't become PyTorch's",
}
_FLOAT_DYNAMIC = {
    # An encoder: 11.5 ms on OpenVINO 2026.4 against 7.8 ms in float32, and 3.9 ms on the CPU provider.
    "openvino": "OpenVINO multiplies dynamically quantized products in float",
    "cuda": "ONNX Runtime's CUDA provider has no kernels for dynamically quantized products",
    "tensorrt": "TensorRT takes no dynamically quantized products",
    "tensorrt_rtx": "TensorRT takes no dynamically quantized products",
    "torch_compile": "torch_compile takes models in float: quantized operators don't become PyTorch's",
}


def no_static_kernels(target: Target) -> str | None:
    """Why statically quantized products can't be fast on ``target``'s provider, or None."""
    return _FLOAT_QDQ.get(target.provider)


def no_dynamic_kernels(target: Target) -> str | None:
    """Why dynamically quantized products can't be fast on ``target``'s provider, or None."""
    return _FLOAT_DYNAMIC.get(target.provider)


def sensible_numbers(target: Target) -> dict[str, tuple[Scalar, ...]]:
    """Integer types with fast kernels in ``target``'s provider on this CPU.

    On x86 signed activations were seen slower than float on every model tried in ONNX Runtime (0.9 times on a
    CNN), and a reduced range only helps where 8-bit products saturate.
    """
    out: dict[str, tuple[Scalar, ...]] = {}
    if target.provider in _TENSORRT:
        out |= {"activations": ("int8",), "symmetric": (True,)}
    elif target.has("avx2") and target.provider != "openvino":
        out["activations"] = ("uint8",)
    if not int8_products_saturate(target):
        out["reduce_range"] = (False,)
    return out
