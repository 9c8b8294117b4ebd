"""What ``gpu.py`` measures: a row is one way of running a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autopilot.domain import Scalar

# What a row takes on a device at least: ten starts of some two seconds, and the timing.
ROW_S = 25.0


@dataclass(frozen=True, slots=True)
class Row:
    """One way of running the model. ``technique``: "" for the model as given.

    ``takes_s``: it begins only where so much time is left.
    """

    provider: str
    technique: str = ""
    options: Mapping[str, Scalar] = field(default_factory=dict)
    params: Mapping[str, Scalar] = field(default_factory=dict)
    takes_s: float = ROW_S

    @property
    def text(self) -> str:
        told = [self.technique or "as given", *(f"{k} {v}" for k, v in self.options.items())]
        return f"{self.provider}: {', '.join(told)}"

    @property
    def is_plain(self) -> bool:
        """Float32 or float16: among these the baseline is chosen."""
        return self.technique in ("", "float16") and self.options.get("precision") not in ("bf16", "bfloat16")


HALF: dict[str, Any] = {"technique": "float16", "params": {"scope": "compute"}}
# In the form that the row's provider multiplies best.
INT8: dict[str, Any] = {"technique": "static_int8"}
# Each of its processes imports torch and compiles, or reads what was compiled: some 15 s, guessed.
COMPILES: dict[str, Any] = {"provider": "torch_compile_cuda", "takes_s": 60.0}
# The first usable one is what the plain ones are compared with.
ROWS = (
    Row("cuda", options={"io": "plain", "tf32": False}),
    Row("cuda", options={"io": "plain"}),
    Row("cuda", options={"io": "graph"}, **HALF),
    Row("cuda", options={"io": "graph"}),
    Row("cuda", options={"io": "bound"}),
    Row("tensorrt", options={"precision": "fp16", "io": "graph"}),
    Row("tensorrt", options={"precision": "fp32", "io": "bound"}),
    Row("cpu"),
    Row(options={"precision": "float16"}, **COMPILES),
    Row(options={"precision": "float32"}, **COMPILES),
    Row("tensorrt", options={"precision": "fp16", "io": "graph"}, **INT8),
    Row("tensorrt", options={"precision": "bf16", "io": "graph"}),
    Row("cuda", options={"io": "graph", "tf32": False}),
    Row("cuda", options={"io": "graph", "channels_last": True}, **HALF),
    Row("cuda", options={"io": "bound", "conv_algorithms": "heuristic"}, **HALF),
    Row("cpu", **INT8),
    Row(options={"precision": "bfloat16"}, **COMPILES),
    Row(options={"precision": "float16", "cuda_graphs": False}, **COMPILES),
)
