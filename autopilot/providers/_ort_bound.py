"""A session whose inputs and outputs stay at fixed addresses on a device: what CUDA graphs and IO binding need.

Timed like every other: arrays of the host in, arrays of the host out, copies included. Checked on the CPU's own
memory, where binding works the same; not yet run on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import Array, Feed
from autopilot.errors import Failure, VariantFailed
from autopilot.providers._ort import OrtSession, translate

if TYPE_CHECKING:
    import onnxruntime

# "gpu_graph_id" of a run: -1 captures nothing, every other number is a graph of its own (ONNX Runtime's CUDA docs).
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"
# A captured graph holds its memory; a server makes batches of 1 to 16 samples. Others run without a graph.
MOST_GRAPHS = 16

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Bound:
    """One set of shapes: its binding, its input values on the device, the options of its runs."""

    binding: Any
    inputs: dict[str, Any]
    options: Any


class BoundSession(OrtSession):
    """Answers through bound memory on ``device``; one thread at a time. ``graphs``: each set of shapes is captured."""

    def __init__(
        self, session: onnxruntime.InferenceSession, device: str, device_id: int = 0, *, graphs: bool = False
    ) -> None:
        super().__init__(session)
        self._device = device
        self._device_id = device_id
        self._graphs = graphs
        self._bound: dict[Shapes, _Bound] = {}

    def run(self, feed: Feed) -> list[Array]:
        """Outputs in the order of ``output_names``.

        Raises:
            VariantFailed: the runtime refused the inputs or failed while running.
        """
        shapes: Shapes = tuple((name, array.shape) for name, array in feed.items())
        bound = self._bound.get(shapes)
        try:
            if bound is None:
                return self._first(feed, shapes)
            for name, value in bound.inputs.items():
                value.update_inplace(np.ascontiguousarray(feed[name]))
            self._session.run_with_iobinding(bound.binding, bound.options)
            outputs: list[Array] = bound.binding.copy_outputs_to_cpu()
        except self._errors as exc:
            raise translate(exc, "running the model failed", Failure.CRASH) from exc
        except (ValueError, RuntimeError) as exc:  # what onnxruntime checks in Python, or while it binds
            raise VariantFailed(Failure.CRASH, f"running the model failed: {exc}") from exc
        return outputs

    def _first(self, feed: Feed, shapes: Shapes) -> list[Array]:
        """A plain run, which checks the inputs and tells the outputs' shapes; the next one is bound."""
        import onnxruntime as ort

        options = ort.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        found: list[Array] = self._session.run(self._names, dict(feed), options)
        if len(self._bound) >= MOST_GRAPHS:
            return found
        place = (self._device, self._device_id)
        inputs = {n: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(a), *place) for n, a in feed.items()}
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, output in zip(self._names, found, strict=True):
            kept = ort.OrtValue.ortvalue_from_shape_and_type(list(output.shape), output.dtype, *place)
            binding.bind_ortvalue_output(name, kept)
        bound_options = ort.RunOptions()
        bound_options.add_run_config_entry(_GRAPH_ID, str(len(self._bound) + 1) if self._graphs else _NO_GRAPH)
        self._bound[shapes] = _Bound(binding, inputs, bound_options)
        return found
