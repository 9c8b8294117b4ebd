"""A session of torch.compile: an ONNX model as a PyTorch module, compiled by inductor for the shapes that come."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from autopilot.cache.compiled import compiled_for
from autopilot.contracts import Array, Feed
from autopilot.errors import Failure, ModelError, Unsupported, VariantFailed
from autopilot.model import ModelInfo, inspect
from autopilot.profile import OperatorCost, Placement
from autopilot.recipe import digest
from autopilot.torch_model import on_device
from autopilot.torch_model.convert import Converted, from_onnx

# How placement calls the host and an NVIDIA device; they are no execution providers of ONNX Runtime.
NAME = "TorchCompile"
CUDA_NAME = "TorchCompileCUDA"
HOST = "cpu"
# A server makes batches of 1 to 16 samples; sets of shapes beyond them are left to one dynamic compilation.
MOST_SHAPES = 16
# torch's own limit of 8 is below MOST_SHAPES; beyond its limit it would run uncompiled and say nothing.
_RECOMPILES = 2 * MOST_SHAPES
# Inductor's CUDA graphs: the first run of a set of shapes warms up, the second records, the third is the first replay.
_RUNS_TO_REPLAY = 3
_CUT = 600
_NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

# Graphs of all sessions on a device live in one tree, which no two threads may walk at a time.
_GRAPHS = threading.Lock()


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is compiled. ``cache``: the folder for what inductor keeps; ``key``: what else it depends on.

    ``device``: torch's name of it. ``precision``: what floats are computed in; ``on_device.OWN`` as the file says.
    ``graphs``: runs are recorded as CUDA graphs, one for each of the fixed sets of shapes. ``tf32``: float32
    products with 10 bits of precision, on devices that can.
    """

    threads: int
    mode: str
    freezing: bool
    fixed: bool
    cache: Path
    key: str
    device: str = HOST
    precision: str = on_device.OWN
    graphs: bool = False
    tf32: bool = False

    @property
    def is_on_host(self) -> bool:
        return self.device == HOST

    @property
    def name(self) -> str:
        """How placement calls what the model is compiled for."""
        return NAME if self.is_on_host else CUDA_NAME

    def options(self, *, fixed: bool) -> dict[str, Any]:
        """Inductor's names and values, for one set of shapes (``fixed``) or all."""
        from torch._inductor import list_mode_options

        # One compiler at a time: worker processes would outlive the load and count as the model's memory.
        own = {**list_mode_options(self.mode), "freezing": self.freezing, "compile_threads": 1}
        if self.is_on_host:
            return {**own, "cpp.threads": self.threads}  # built into its loops
        graphs = self.graphs and fixed
        # Inductor would run without graphs, or in several with steps on the host between, with a line in its log.
        strict = {"triton.cudagraph_or_error": graphs, "graph_partition": False}
        return {**own, **strict, "triton.cudagraphs": graphs}


def open_session(artifact: Path, settings: Settings) -> CompiledSession:
    """The session of ``artifact``; inductor compiles when the first request comes.

    Raises:
        VariantFailed: PROVIDER_MISSING; BUILD_ERROR for a file that is no ONNX model; OOM.
        Unsupported: operators that can't become PyTorch's.
    """
    _start_torch(settings)
    try:
        info = inspect(artifact)
        converted = from_onnx(artifact)
    except ModelError as exc:
        message = f"torch_compile can't load the model: {exc.message}"
        raise VariantFailed(Failure.BUILD_ERROR, message, exc.hint) from exc
    folder = compiled_for(settings.cache, digest([settings.key, _weights_digest(converted)])[:16])
    # Inductor asks for it whenever it compiles; its own default is in the system's temporary folder.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    try:
        _prepare(converted, settings, info)
    except (RuntimeError, MemoryError) as exc:
        _refuse(exc, "loading the model failed")
    inputs = tuple((t.name, np.dtype(t.dtype), tuple(t.shape)) for t in info.inputs)
    return CompiledSession(converted, settings, inputs)


def _start_torch(settings: Settings) -> None:
    """Import torch, set its threads and (on a device) TensorFloat-32, see that the device is there.

    Raises:
        VariantFailed: PROVIDER_MISSING, without torch or the device.
    """
    hint = "`autopilot doctor` lists usable providers."
    try:
        import torch
    except ImportError as exc:
        message = f"the package torch can't be loaded: {exc}."
        raise VariantFailed(Failure.PROVIDER_MISSING, message, hint) from exc
    torch.set_num_threads(settings.threads)
    if settings.is_on_host:
        return
    if not torch.cuda.is_available():
        message = f"torch {torch.__version__} finds no CUDA device (torch.cuda.is_available())."
        raise VariantFailed(Failure.PROVIDER_MISSING, message, hint)
    index = torch.device(settings.device).index or 0
    if index >= (count := torch.cuda.device_count()):
        message = f"device {index} was asked for and torch finds {count}, counted from 0."
        raise VariantFailed(Failure.PROVIDER_MISSING, message, hint)
    use_tf32(settings.tf32)


def use_tf32(allowed: bool) -> None:
    """Let float32 products and convolutions on NVIDIA devices use TensorFloat-32, or not.

    By the older of torch 2.13's two interfaces: it sets the newer one's values (``fp32_precision``) as well, which
    inductor reads, while the newer one leaves the older's behind, and reading those then fails.
    """
    import torch

    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def _prepare(converted: Converted, settings: Settings, info: ModelInfo) -> None:
    """Give the module the settings' precision and device."""
    if settings.precision != on_device.OWN:
        types = {t.name: t.dtype for t in info.inputs}
        call = converted.call
        on_device.compute_in(
            converted.module,
            settings.precision,
            inputs={own: types[name] for name, own in zip(call.names, call.parameters, strict=True)},
            outputs={t.name: t.dtype for t in info.outputs},
        )
    if not settings.is_on_host:
        on_device.place(converted.module, settings.device)


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
        from torch._dynamo.exc import FailOnRecompileLimitHit
        from torch._inductor import config

        self._torch = torch
        self._too_many = FailOnRecompileLimitHit
        self._inductor: Any = config
        self._call = converted.call
        self._module = converted.module
        self._settings = settings
        self._inputs = inputs
        self._names = tuple(next(n for n in converted.module.graph.nodes if n.op == "output").args[0])
        # fullgraph: all of it compiled or none, so that no part runs uncompiled without a word.
        dynamic, fixed = settings.options(fixed=False), settings.options(fixed=True)
        # The limit by argument: torch's own setting holds in one thread only.
        compiled = partial(torch.compile, converted.module, fullgraph=True, recompile_limit=_RECOMPILES)
        self._dynamic = compiled(dynamic=True, options=dynamic)
        self._fixed = compiled(dynamic=False, options=fixed)
        self._most = MOST_SHAPES if settings.fixed else 0
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()
        self._last: tuple[tuple[int, ...], ...] | None = None
        self._turn: AbstractContextManager[Any] = _GRAPHS if settings.graphs else nullcontext()

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
        is_new = shapes not in self._shapes and len(self._shapes) < self._most
        if is_new:
            self._shapes.add(shapes)
        self._last = shapes
        compiled = self._fixed if shapes in self._shapes else self._dynamic
        before = _RUNS_TO_REPLAY - 1 if is_new and self._settings.graphs else 0
        if is_new or compiled is self._dynamic:
            # The tracer, which runs before inductor has its options, looks here: else weights stay arguments, none is
            # packed beforehand, and a small CNN takes 1.7 ms instead of 0.7.
            self._inductor.freezing = self._settings.freezing
        try:
            given = self._given(feed)
            with self._turn, self._torch.inference_mode():
                for _ in range(before):
                    self._answer(compiled, given)
                # On a device: the copies wait for it, and are made before another run writes over a graph's outputs.
                return [value.cpu().numpy() for value in self._answer(compiled, given)]
        except (RuntimeError, MemoryError, self._too_many) as exc:
            _refuse(exc, "running the model failed")

    def _given(self, feed: Feed) -> tuple[Any, ...]:
        """The inputs where the model is; all are passed by place."""
        plain, _ = self._call.arguments(feed)
        device = self._settings.device
        return plain if self._settings.is_on_host else tuple(tensor.to(device) for tensor in plain)

    def _answer(self, compiled: Any, given: tuple[Any, ...]) -> list[Any]:
        if self._settings.graphs:
            self._torch.compiler.cudagraph_mark_step_begin()  # what the last run answered with is copied by now
        answer = compiled(*given)
        return [answer[name] for name in self._names]

    def placement(self) -> Placement:
        """Nodes of the PyTorch graph by where their results lie; compiled as a whole or not at all.

        On the host there is no other place. On a device it is known after the first request, from the same
        propagation without data that torch.compile traces with; before, all are where they were asked for.
        """
        nodes = sum(n.op.startswith("call_") for n in self._module.graph.nodes)
        if self._settings.is_on_host or self._last is None:
            return Placement({self._settings.name: nodes})
        given = {name: (shape, str(dtype)) for (name, dtype, _), shape in zip(self._inputs, self._last, strict=True)}
        inputs = [given[name] for name in self._call.names]
        return placed(on_device.traced(self._module, inputs, self._settings.device), nodes)

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


def placed(found: Mapping[str, int], nodes: int) -> Placement:
    """Placement of ``nodes`` calls meant for an NVIDIA device, from where tensors were ``found``, by kind of device.

    Calls that give no tensors are arithmetic on shapes, which becomes part of the program.

    >>> dict(placed({"cuda": 4, "cpu": 1}, 6).nodes)
    {'TorchCompileCUDA': 5, 'TorchCompile': 1}
    """
    elsewhere = sum(count for kind, count in found.items() if kind != "cuda")
    return Placement({CUDA_NAME: nodes - elsewhere} | ({NAME: elsewhere} if elsewhere else {}))


def _refuse(exc: Exception, what: str) -> NoReturn:
    """Raise one of torch's errors as one of ours."""
    from torch import OutOfMemoryError
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    text = " ".join(str(exc).split())[:_CUT]
    is_memory = isinstance(exc, (MemoryError, OutOfMemoryError)) or any(sign in str(exc) for sign in _NO_MEMORY)
    if is_memory:
        hint = "Lower the batch size, or take a device or machine with more memory."
        raise VariantFailed(Failure.OOM, f"{what}: {text}", hint) from exc
    if isinstance(exc, (TorchDynamoException, FailOnRecompileLimitHit)):
        raise Unsupported(f"torch.compile can't compile the model: {text}", "Take another provider.") from exc
    raise VariantFailed(Failure.CRASH, f"{what}: {text}") from exc
