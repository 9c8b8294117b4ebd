"""ONNX Runtime's sessions as they would be with CUDA and TensorRT, run on the CPU. See ``sitecustomize``."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

DEVICES = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
CPU = "CPUExecutionProvider"
# Nodes called like that have no kernel on the pretended device, or compute shapes.
ON_HOST = "/host/"
# Regular runs before a graph is captured, as in cuda_execution_provider.h; TensorRT captures after one.
GRAPH_ID, SKIP = "gpu_graph_id", "-1"


def install(ort: Any) -> None:
    """Replace sessions, device memory and the list of providers of the module ``ort``."""
    real_session, real_value, all_providers = ort.InferenceSession, ort.OrtValue, ort.get_available_providers
    ort.InferenceSession = sessions(real_session)
    ort.get_available_providers = lambda: [*DEVICES, *all_providers()]
    from_numpy, from_shape = real_value.ortvalue_from_numpy, real_value.ortvalue_from_shape_and_type

    def copied(array: Any, /, device_type: str = "cpu", device_id: int = 0, **rest: Any) -> Any:
        # Memory of a device is never the array's own.
        return from_numpy(array if device_type == "cpu" else np.array(array), "cpu", 0, **rest)

    real_value.ortvalue_from_numpy = staticmethod(copied)
    real_value.ortvalue_from_shape_and_type = staticmethod(
        lambda shape, dtype, device_type="cpu", device_id=0, **rest: from_shape(shape, dtype, "cpu", 0, **rest)
    )


def sessions(real: Any) -> Any:
    """The class of sessions that pretends."""

    class Session(real):  # type: ignore[misc]
        """A session on the CPU in the name of the first of ``providers``."""

        memory_name = "Cuda"

        def __init__(self, path: Any, options: Any = None, providers: Any = None, **rest: Any) -> None:
            asked = [p if isinstance(p, tuple) else (p, {}) for p in providers or [CPU]]
            self._asked = [name for name, _ in asked]
            told = asked[0][1]
            self._on_device = self._asked[0] in DEVICES
            self._graphs = "1" in (told.get("enable_cuda_graph"), told.get("trt_cuda_graph_enable"))
            self._is_tensorrt = self._asked[0] == DEVICES[0]
            self._captured: dict[Any, Any] = {}
            self._plain_runs = 0
            super().__init__(path, options, providers=[CPU], **rest)

        def get_providers(self) -> list[str]:
            return self._asked

        def get_provider_graph_assignment_info(self) -> list[Any]:
            nodes = [n for part in super().get_provider_graph_assignment_info() for n in part.get_nodes()]
            stay = [n for n in nodes if self._on_device and n.name.startswith(ON_HOST)]
            rest = [n for n in nodes if n not in stay]
            told = ((self._asked[0], rest), (CPU, stay))
            return [SimpleNamespace(ep_name=ep, get_nodes=lambda own=own: own) for ep, own in told if own]

        def get_input_memory_infos(self) -> list[Any]:
            return self._memory(super().get_input_memory_infos())

        def get_output_memory_infos(self) -> list[Any]:
            return self._memory(super().get_output_memory_infos())

        def _memory(self, infos: Any) -> list[Any]:
            return [SimpleNamespace(name=self.memory_name) for _ in infos] if self._on_device else list(infos)

        def run(self, names: Any, feed: Any, options: Any = None) -> Any:
            graph = self._graph(options)
            if graph in self._captured:
                # Nothing is fed and nothing fetched: what comes back is whatever lies there.
                self._replay(graph)
                return [np.zeros_like(o) for o in self._captured[graph].copy_outputs_to_cpu()]
            answers = super().run(names, feed, options)
            if self._graphs and self._is_tensorrt:
                self._plain_runs += 1
                assert self._plain_runs < 2, "TensorRT would capture this run, whose memory is nobody's"
            return answers

        def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
            graph = self._graph(options)
            if graph in self._captured:
                self._replay(graph)
                return
            super().run_with_iobinding(binding, options)
            if graph is not None:
                self._captured[graph] = binding

        def end_profiling(self) -> str:
            """The runtime's file, with the nodes where they are pretended to be."""
            path = super().end_profiling()
            if self._on_device:
                Path(path).write_text(Path(path).read_text().replace(f'"{CPU}"', f'"{self._asked[0]}"'))
            return path

        def _graph(self, options: Any) -> Any:
            """What a captured graph is kept under; None where this run captures nothing."""
            if not self._graphs:
                return None
            number = options.get_run_config_entry(GRAPH_ID)
            if self._is_tensorrt:
                return 0 if number != SKIP or 0 in self._captured else None
            return None if number == SKIP else (threading.get_ident(), number)

        def _replay(self, graph: Any) -> None:
            super().run_with_iobinding(self._captured[graph])

    return Session
