"""A session of OpenVINO's runtime: compiled models by shape, requests by thread, kernels from its counters."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from autopilot.contracts import Array, Feed
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.profile import Kernel, OperatorCost, Placement
from autopilot.providers._openvino_errors import refuse
from autopilot.providers._openvino_kernels import KernelRun, costs_of, is_quantized, kernel_of, node_count, sources_of

# How placement and operator costs call it; it is no execution provider of ONNX Runtime.
NAME = "OpenVINO"
# A server makes batches of 1 to 16 samples; each set of shapes beyond them is left to the dynamic model.
MOST_SHAPES = 16
# Sets of shapes remembered as checked, by thread; a check takes some microseconds.
MOST_SEEN = 64
# OpenVINO's generated code for several operators at once ("snippets", kernel "Subgraph"), off for quantized models:
# 2026.4 makes one of a small chain of int8 products at small fixed batches, whose answers are off by a factor of 1e10
# and whose products no counter shows. It costs nothing on an int8 CNN and encoder, 3 us on chains of products.
_NO_SNIPPETS = {"SNIPPETS_MODE": "DISABLE"}
# What OpenVINO's kernels for the CPU make of every wider whole number, cutting the rest off without a word.
_INT32 = np.iinfo(np.int32)
_WIDER = frozenset({"int64", "uint64", "uint32"})
_TELEMETRY = "openvino_telemetry"

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is compiled. ``counts_kernels``, ``keeps_costs``: with the counters on, for one run or for all."""

    threads: int
    precision: str
    pinning: bool
    fixed: bool
    counts_kernels: bool = False
    keeps_costs: bool = False

    @property
    def properties(self) -> dict[str, Any]:
        """OpenVINO's names and values."""
        return {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self.precision,
            "ENABLE_CPU_PINNING": self.pinning,
            "PERF_COUNT": self.counts_kernels or self.keeps_costs,
        }


@cache
def runtime() -> ModuleType:
    """The openvino package, imported without its telemetry.

    ``import openvino`` (2026.4) loads openvino_telemetry where it is installed, writes an id into the home folder
    and reports the import to Google Analytics. With that module out of reach it takes its own stub instead.

    Raises:
        VariantFailed: PROVIDER_MISSING.
    """
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]  # None is how an import is blocked
    try:
        import openvino
    except ImportError as exc:
        message = f"the package openvino can't be loaded: {exc}."
        raise VariantFailed(
            Failure.PROVIDER_MISSING, message, "`autopilot doctor` lists the usable providers."
        ) from exc
    found: ModuleType = openvino
    return found


@cache
def _core() -> Any:
    """OpenVINO's core: one a process, since compiled models share what they can through it."""
    return runtime().Core()


def _version() -> str:
    """``2026.4.1`` of ``2026.4.1-22982-e213a147257-releases/2026/4``."""
    return str(runtime().get_version()).split("-", 1)[0]


def open_session(artifact: Path, settings: Settings) -> OpenVinoSession:
    """The session of ``artifact``.

    Raises:
        VariantFailed: BUILD_ERROR or OOM; PROVIDER_MISSING.
        Unsupported: an operator that OpenVINO doesn't know, or a text input or output.
    """
    core = _core()
    try:
        model = core.read_model(str(artifact))
    except (RuntimeError, MemoryError) as exc:
        refuse(exc, f"OpenVINO {_version()} can't load the model", Failure.BUILD_ERROR)
    session = OpenVinoSession(model, settings)
    if not (settings.fixed and model.is_dynamic()):
        session.compile_for(None)
    return session


def _check_fits(name: str, array: Array) -> None:
    """Refuse whole numbers beyond 32 bits; some 2 us for a text, 5 us for 8,192 numbers."""
    least, largest = int(array.min()), int(array.max())
    if least < _INT32.min or largest > _INT32.max:
        beyond = largest if largest > _INT32.max else least
        message = f"input {name!r} holds {beyond}: OpenVINO computes whole numbers in 32 bits and cuts the rest off."
        raise Unsupported(message, "Take provider cpu, or map such numbers (hashes, ids) before the model.")


@dataclass(frozen=True, slots=True)
class _Request:
    """One thread's request to one compiled model, with its ports in the model's order."""

    request: Any
    compiled: Any
    inputs: tuple[Any, ...]


class OpenVinoSession:
    """A loaded model: host arrays in, host arrays out.

    Several threads may ask it; it answers them in turn (one stream), unless ``answer_side_by_side`` says otherwise.
    """

    def __init__(self, model: Any, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self._properties = settings.properties | (_NO_SNIPPETS if is_quantized(model) else {})
        self._tensor = runtime().Tensor
        self._inputs = tuple(p.get_friendly_name() for p in model.get_parameters())
        self._names = tuple(r.get_friendly_name().removesuffix("/sink_port_0") for r in model.get_results())
        ports = (*model.inputs, *model.outputs)
        if any(port.element_type == runtime().Type.string for port in ports):
            raise Unsupported("the model takes or gives text, which is left to ONNX Runtime.", "Take provider cpu.")
        self._types = tuple(np.dtype(port.element_type.to_dtype()) for port in model.inputs)
        self._shapes = tuple(port.partial_shape for port in model.inputs)
        self._compiled: dict[Shapes | None, Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._last: _Request | None = None
        self._costs: list[list[KernelRun]] = []

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._names

    def run(self, feed: Feed) -> list[Array]:
        """Outputs in the order of ``output_names``.

        Raises:
            VariantFailed: an input is missing or doesn't fit, or the runtime failed.
            Unsupported: an input holds whole numbers beyond 32 bits.
        """
        arrays = self._taken(feed)
        try:
            ready = self._ready(tuple(a.shape for a in arrays))
            request = ready.request
            for port, array in zip(ready.inputs, arrays, strict=True):
                request.set_tensor(port, self._tensor(array, shared_memory=True))
            request.infer(share_outputs=True)
            # The request's own memory is written over by the next run.
            outputs = [request.get_output_tensor(i).data.copy() for i in range(len(self._names))]
        except (RuntimeError, MemoryError) as exc:
            refuse(exc, "running the model failed", Failure.CRASH)
        self._last = ready
        if self._settings.keeps_costs:
            self._costs.append([KernelRun.of(info) for info in request.profiling_info])
        return outputs

    def answer_side_by_side(self, runs: int) -> None:
        """Answer so many runs at a time, each with the deployment's threads: to be called before the first run."""
        with self._lock:
            threads = runs * self._settings.threads
            self._properties |= {"NUM_STREAMS": runs, "INFERENCE_NUM_THREADS": threads}
            self._compiled.clear()

    def placement(self) -> Placement:
        """All nodes run here: OpenVINO takes a model as a whole or not at all."""
        compiled = next(reversed(self._compiled.values()), None)
        graph = self._model if compiled is None else compiled.get_runtime_model()
        return Placement({NAME: node_count(graph)})

    def kernels(self) -> tuple[Kernel, ...] | None:
        """The kernels of the last run, from OpenVINO's counters; None where they weren't on or nothing ran."""
        if self._last is None or not self._settings.counts_kernels:
            return None
        sources = sources_of(self._last.compiled.get_runtime_model())
        runs = [KernelRun.of(info) for info in self._last.request.profiling_info]
        return tuple(kernel_of(run, sources.get(run.name, ())) for run in runs if run.executed)

    def operator_costs(self, requests: int) -> tuple[OperatorCost, ...]:
        """Costs of the last ``requests`` runs by operator, from OpenVINO's counters.

        Raises:
            Unsupported: the session was opened without ``profile_to``, or ran less often.
        """
        if not self._settings.keeps_costs:
            raise Unsupported("the session keeps no profile.", "Open it with profile_to.")
        kept = self._costs[-requests:]
        if len(kept) < requests:
            raise Unsupported(f"the session has answered {len(kept)} of {requests} requests.")
        return costs_of(kept, NAME)

    def compile_for(self, shapes: Shapes | None) -> Any:
        """The model compiled for ``shapes`` (None: for all that it takes), once.

        Raises:
            VariantFailed: BUILD_ERROR or OOM.
            Unsupported: an operator without an implementation.
        """
        with self._lock:
            if shapes is not None and shapes not in self._compiled and len(self._compiled) >= MOST_SHAPES:
                shapes = None
            if shapes not in self._compiled:
                self._compiled[shapes] = self._compile(shapes)
            return self._compiled[shapes]

    def _compile(self, shapes: Shapes | None) -> Any:
        model = self._model
        try:
            if shapes is not None:
                model = model.clone()
                model.reshape({i: list(shape) for i, shape in enumerate(shapes)})
            return _core().compile_model(model, "CPU", self._properties)
        except (RuntimeError, MemoryError) as exc:
            refuse(exc, f"OpenVINO {_version()} can't compile the model", Failure.BUILD_ERROR)

    def _ready(self, shapes: Shapes) -> _Request:
        """This thread's request for inputs of ``shapes``."""
        requests: dict[Shapes | None, _Request] = self._local.__dict__.setdefault("requests", {})
        if shapes in requests:
            return requests[shapes]
        self._check(shapes)
        key = shapes if self._settings.fixed and self._model.is_dynamic() else None
        if key not in requests:
            compiled = self.compile_for(key)
            requests[key] = _Request(compiled.create_infer_request(), compiled, tuple(compiled.inputs))
        found = requests[key]
        if len(requests) < MOST_SEEN:
            requests[shapes] = found  # checked, and found at once the next time
        return found

    def _check(self, shapes: Shapes) -> None:
        """Refuse what doesn't fit the model as it was read: reshaping it would make some wrong shapes right."""
        for name, wanted, shape in zip(self._inputs, self._shapes, shapes, strict=True):
            if not wanted.compatible(runtime().PartialShape(list(shape))):
                message = f"running the model failed: input {name!r} has shape {list(shape)}, not {wanted}."
                raise VariantFailed(Failure.CRASH, message)

    def _taken(self, feed: Feed) -> list[Array]:
        """The inputs in the model's order, as arrays that OpenVINO may read in place."""
        arrays = []
        for name, wanted in zip(self._inputs, self._types, strict=True):
            array = feed.get(name)
            if array is None:
                raise VariantFailed(Failure.CRASH, f"running the model failed: input {name!r} is missing.")
            if array.dtype != wanted:
                message = f"running the model failed: input {name!r} is {array.dtype}, not {wanted}."
                raise VariantFailed(Failure.CRASH, message)
            if wanted.name in _WIDER and array.size:
                _check_fits(name, array)
            flags = array.flags
            # OpenVINO takes no memory that it may not write, though it doesn't write it.
            arrays.append(array if flags.c_contiguous and flags.writeable else np.array(array, order="C"))
        return arrays
