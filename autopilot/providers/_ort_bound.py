"""A session whose inputs and outputs stay at fixed addresses on a device: what CUDA graphs and IO binding need.

Timed like every other: arrays of the host in, arrays of the host out, copies included. Checked on the CPU's own
memory, where binding works the same, and on a stand-in that keeps ONNX Runtime's rules of graphs; not yet run on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import Array, Feed
from autopilot.errors import Failure, Unsupported, VariantFailed
from autopilot.providers._ort import OrtSession, translate
from autopilot.providers._ort_device import DeviceSession

if TYPE_CHECKING:
    import onnxruntime

# "gpu_graph_id" of a run: -1 captures nothing, every other number is a graph of its own (ONNX Runtime's CUDA docs).
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"
# A captured graph holds its memory; a server makes batches of 1 to 16 samples. Others run without a graph.
MOST_GRAPHS = 16
# ONNX Runtime captures in cudaStreamCaptureModeGlobal (cuda_graph.cc): an allocation or a wait by another thread of
# the process meanwhile spoils the graph. So sessions with graphs take turns, whichever of them captures.
_TURN = threading.Lock()

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Bound:
    """One set of shapes: its binding, its input values on the device, the options of its runs."""

    binding: Any
    inputs: dict[str, Any]
    options: Any


class BoundSession(DeviceSession):
    """Answers through bound memory on ``device``, one request at a time whoever asks.

    What the runtime reads or leaves on the host is bound there. The first run of a set of shapes is plain.
    ``graphs``: each set of shapes is captured as a CUDA graph.

    Raises:
        Unsupported: ``graphs`` of a model that reads an input on the host.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, device: str, device_id: int = 0, *, graphs: bool = False
    ) -> None:
        super().__init__(session)
        self._device = device
        self._device_id = device_id
        self._graphs = graphs
        self._turn = _TURN if graphs else threading.Lock()
        self._bound: dict[Shapes, _Bound] = {}
        placed = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
        left = zip(session.get_outputs(), session.get_output_memory_infos(), strict=True)
        self._on_host = frozenset(v.name for v, memory in (*placed, *left) if memory.name.lower() != device)
        read = sorted(self._on_host & {i.name for i in session.get_inputs()})
        if graphs and read:
            raise Unsupported(
                f"the model reads its input {read[0]} on the host: a captured graph would go on with the first values.",
                "Take io bound or plain.",
            )

    def run(self, feed: Feed) -> list[Array]:
        """Outputs in the order of ``output_names``.

        Raises:
            VariantFailed: the runtime refused the inputs or failed while running.
        """
        with self._turn:
            return self._answer(feed, self._bound)

    def _answer(self, feed: Feed, bound: dict[Shapes, _Bound]) -> list[Array]:
        shapes = shapes_of(feed)
        known = bound.get(shapes)
        try:
            if known is None:
                return self._first(feed, shapes, bound)
            for name, value in known.inputs.items():
                value.update_inplace(np.ascontiguousarray(feed[name]))
            self._session.run_with_iobinding(known.binding, known.options)
            outputs: list[Array] = known.binding.copy_outputs_to_cpu()
        except self._errors as exc:
            raise translate(exc, "running the model failed", Failure.CRASH) from exc
        except (ValueError, RuntimeError) as exc:  # what onnxruntime checks in Python, or while it binds
            raise VariantFailed(Failure.CRASH, f"running the model failed: {exc}") from exc
        # Values on the host are handed out as they are bound: the next run would write over them.
        return [np.array(o) if n in self._on_host else o for n, o in zip(self._names, outputs, strict=True)]

    def _first(self, feed: Feed, shapes: Shapes, bound: dict[Shapes, _Bound]) -> list[Array]:
        """A plain run, which checks the inputs and tells the outputs' shapes; the next one is bound."""
        import onnxruntime as ort

        options = ort.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        found: list[Array] = self._session.run(self._names, dict(feed), options)
        if len(bound) >= MOST_GRAPHS:
            return found
        # A copy: on the host a value is the array that it was made from.
        inputs = {n: ort.OrtValue.ortvalue_from_numpy(np.array(a, order="C"), *self._place(n)) for n, a in feed.items()}
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, output in zip(self._names, found, strict=True):
            kept = ort.OrtValue.ortvalue_from_shape_and_type(list(output.shape), output.dtype, *self._place(name))
            binding.bind_ortvalue_output(name, kept)
        bound_options = ort.RunOptions()
        bound_options.add_run_config_entry(_GRAPH_ID, str(len(bound) + 1) if self._graphs else _NO_GRAPH)
        bound[shapes] = _Bound(binding, inputs, bound_options)
        return found

    def _place(self, name: str) -> tuple[str, int]:
        return ("cpu", 0) if name in self._on_host else (self._device, self._device_id)


class GraphSession(BoundSession):
    """A bound session with graphs that any thread may ask.

    A graph is its thread's own: ONNX Runtime captures again what another thread runs. So requests of the thread that
    came first run there, and those of all others in one thread of the session's.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str, device_id: int = 0) -> None:
        super().__init__(session, device, device_id, graphs=True)
        self._home: int | None = None
        self._others: ThreadPoolExecutor | None = None
        self._bound_for_others: dict[Shapes, _Bound] = {}

    def run(self, feed: Feed) -> list[Array]:
        """Outputs in the order of ``output_names``.

        Raises:
            VariantFailed: the runtime refused the inputs or failed while running.
        """
        here = threading.get_ident()
        with self._turn:
            if self._home is None:
                self._home = here
            if here == self._home:
                return self._answer(feed, self._bound)
            if self._others is None:
                self._others = ThreadPoolExecutor(1, thread_name_prefix="cuda-graph")
            return self._others.submit(self._answer, feed, self._bound_for_others).result()


class OneGraphSession(DeviceSession):
    """A graph for the first set of shapes, another session for all others.

    ONNX Runtime's TensorRT provider has one graph a session, whatever "gpu_graph_id" says: once it is captured every
    run replays it, with the first shapes and at the first addresses.
    """

    def __init__(self, graphed: BoundSession, open_other: Callable[[], OrtSession]) -> None:
        super().__init__(graphed.inner)
        self._graphed = graphed
        self._open = open_other
        self._other: OrtSession | None = None
        self._shapes: Shapes | None = None
        self._opening = threading.Lock()

    def run(self, feed: Feed) -> list[Array]:
        """Outputs in the order of ``output_names``.

        Raises:
            VariantFailed: the runtime refused the inputs or failed while running, or the other session doesn't open.
        """
        shapes = shapes_of(feed)
        with self._opening:
            if self._shapes is None:
                outputs = self._graphed.run(feed)
                self._shapes = shapes
                return outputs
            if shapes != self._shapes and self._other is None:
                self._other = self._open()
        if shapes == self._shapes or self._other is None:
            return self._graphed.run(feed)
        return self._other.run(feed)


def shapes_of(feed: Feed) -> Shapes:
    """Names and shapes of the arrays in ``feed``: what a captured graph holds for."""
    return tuple((name, array.shape) for name, array in feed.items())
