"""A session of torch.compile: an ONNX model as a PyTorch module, compiled by inductor for the shapes that come."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from autopilot.contracts import Array, Feed
from autopilot.errors import Failure, ModelError, Unsupported, VariantFailed
from autopilot.model import inspect
from autopilot.profile import OperatorCost, Placement
from autopilot.recipe import digest
from autopilot.torch_model.convert import Converted, from_onnx

# How placement calls it; it is no execution provider of ONNX Runtime.
NAME = "TorchCompile"
# A server makes batches of 1 to 16 samples; sets of shapes beyond them are left to one dynamic compilation.
MOST_SHAPES = 16
# torch's own limit of 8 is below MOST_SHAPES; beyond its limit it would run uncompiled and say nothing.
_RECOMPILES = 2 * MOST_SHAPES
_CUT = 600


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is compiled. ``cache``: the folder for what inductor keeps; ``key``: what else it depends on."""

    threads: int
    mode: str
    freezing: bool
    fixed: bool
    cache: Path
    key: str

    def options(self) -> dict[str, Any]:
        """Inductor's names and values. The thread count is built into its loops, so it is part of them."""
        from torch._inductor import list_mode_options

        # One compiler at a time: worker processes would outlive the load and count as the model's memory.
        own = {"freezing": self.freezing, "cpp.threads": self.threads, "compile_threads": 1}
        return {**list_mode_options(self.mode), **own}


def open_session(artifact: Path, settings: Settings) -> CompiledSession:
    """The session of ``artifact``; inductor compiles when the first request comes.

    Raises:
        VariantFailed: PROVIDER_MISSING; BUILD_ERROR for a file that is no ONNX model.
        Unsupported: operators that can't become PyTorch's.
    """
    try:
        import torch
        import torch._dynamo.config as dynamo
    except ImportError as exc:
        message = f"the package torch can't be loaded: {exc}."
        raise VariantFailed(Failure.PROVIDER_MISSING, message, "`autopilot doctor` lists usable providers.") from exc
    torch.set_num_threads(settings.threads)
    dynamo.recompile_limit = _RECOMPILES
    dynamo.fail_on_recompile_limit_hit = True
    try:
        signature = inspect(artifact)
        converted = from_onnx(artifact)
    except ModelError as exc:
        message = f"torch_compile can't load the model: {exc.message}"
        raise VariantFailed(Failure.BUILD_ERROR, message, exc.hint) from exc
    folder = settings.cache / digest([settings.key, _weights_digest(converted)])[:16]
    folder.mkdir(parents=True, exist_ok=True)
    # Inductor asks for it whenever it compiles; its own default is in the system's temporary folder.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    inputs = tuple((t.name, np.dtype(t.dtype), tuple(t.shape)) for t in signature.inputs)
    return CompiledSession(converted, settings, inputs)


def _weights_digest(converted: Converted) -> str:
    """SHA-256 of code and stored tensors: frozen programs have the weights built in."""
    seen = hashlib.sha256(converted.module.code.encode())
    for name, tensor in sorted(converted.module.state_dict().items()):
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        seen.update(np.ascontiguousarray(tensor.detach().numpy()).tobytes())
    return seen.hexdigest()


class CompiledSession:
    """A loaded model: host arrays in, host arrays out."""

    def __init__(
        self, converted: Converted, settings: Settings, inputs: tuple[tuple[str, Any, tuple[Any, ...]], ...]
    ) -> None:
        import torch

        self._torch = torch
        self._call = converted.call
        self._inputs = inputs
        self._nodes = sum(n.op.startswith("call_") for n in converted.module.graph.nodes)
        self._names = tuple(next(n for n in converted.module.graph.nodes if n.op == "output").args[0])
        options = settings.options()
        # fullgraph: all of it compiled or none, so that no part runs uncompiled without a word.
        self._dynamic = torch.compile(converted.module, fullgraph=True, dynamic=True, options=options)
        self._fixed = torch.compile(converted.module, fullgraph=True, dynamic=False, options=options)
        self._most = MOST_SHAPES if settings.fixed else 0
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._names

    def run(self, feed: Feed) -> list[Array]:
        """Outputs in the order of ``output_names``.

        Raises:
            VariantFailed: an input is missing or doesn't fit, or running failed.
            Unsupported: a part that inductor can't compile.
        """
        shapes = self._checked(feed)
        if shapes not in self._shapes and len(self._shapes) < self._most:
            self._shapes.add(shapes)
        compiled = self._fixed if shapes in self._shapes else self._dynamic
        plain, keywords = self._call.arguments(feed)
        try:
            with self._torch.inference_mode():
                answer = compiled(*plain, **keywords)
        except (RuntimeError, MemoryError) as exc:
            self._refuse(exc)
        return [answer[name].numpy() for name in self._names]

    def placement(self) -> Placement:
        """All nodes of the PyTorch graph run here: it is compiled as a whole or not at all."""
        return Placement({NAME: self._nodes})

    def operator_costs(self, requests: int) -> tuple[OperatorCost, ...]:
        """Nothing: inductor's kernels are of many operators each.

        Raises:
            Unsupported: always.
        """
        raise Unsupported("inductor fuses operators into kernels of its own, which can't be timed by operator.")

    def _checked(self, feed: Feed) -> tuple[tuple[int, ...], ...]:
        """The inputs' shapes; torch itself would take wrong ones where they happen to broadcast."""
        shapes = []
        for name, dtype, wanted in self._inputs:
            array = feed.get(name)
            if array is None:
                raise VariantFailed(Failure.CRASH, f"running the model failed: input {name!r} is missing.")
            fits = len(wanted) == array.ndim and all(
                not isinstance(w, int) or w == d for w, d in zip(wanted, array.shape, strict=True)
            )
            if array.dtype != dtype or not fits:
                message = f"input {name!r} is {array.dtype}{list(array.shape)}, not {dtype}{list(wanted)}."
                raise VariantFailed(Failure.CRASH, f"running the model failed: {message}")
            shapes.append(array.shape)
        return tuple(shapes)

    def _refuse(self, exc: Exception) -> NoReturn:
        """Raise one of torch's errors as one of ours."""
        from torch._dynamo.exc import TorchDynamoException

        text = " ".join(str(exc).split())[:_CUT]
        if isinstance(exc, MemoryError) or "can't allocate memory" in text:
            raise VariantFailed(Failure.OOM, f"running the model failed: {text}") from exc
        if isinstance(exc, TorchDynamoException):
            raise Unsupported(f"torch.compile can't compile the model: {text}", "Take another provider.") from exc
        raise VariantFailed(Failure.CRASH, f"running the model failed: {text}") from exc
