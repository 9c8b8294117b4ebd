"""Makes this machine look as if it had an NVIDIA device, for processes with this folder on PYTHONPATH.

What is pretended: the driver's list of devices, NVML, onnxruntime-gpu and NVIDIA's libraries, and ONNX Runtime's CUDA
and TensorRT providers, which run on the CPU. Everything else is real: processes, sessions, answers. A captured graph
keeps to ONNX Runtime's rules: CUDA's is one of a thread and a number, TensorRT's one of a session; what is replayed
reads and writes the memory that was bound when it was captured.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

PATCHES: dict[str, Callable[[Any], None]] = {}


def after(name: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Run the decorated function on the module called ``name`` when it is imported."""

    def remember(patch: Callable[[Any], None]) -> Callable[[Any], None]:
        PATCHES[name] = patch
        return patch

    return remember


class Finder(importlib.abc.MetaPathFinder):
    """Finds modules as usual and patches those in ``PATCHES`` once they are loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in PATCHES:
            return None
        patch = PATCHES.pop(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            PATCHES[name] = patch  # finding isn't loading yet
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@after("autopilot.target")
def pretend_device(module: Any) -> None:
    """One device, and onnxruntime-gpu in place of onnxruntime."""
    real = module.installed_versions

    def versions() -> dict[str, str]:
        found = real()
        return {("onnxruntime-gpu" if name == "onnxruntime" else name): told for name, told in found.items()}

    module.installed_versions = versions
    module.nvidia_gpus = lambda root=None: ("NVIDIA Pretence",)


@after("autopilot.nvml")
def pretend_nvml(module: Any) -> None:
    """A device of 50 W on which every process of this machine that asks holds 300 MB."""
    from fake_nvml_device import Nvml

    real = module.open_devices
    module.open_devices = lambda api=None: real(Nvml() if api is None else api)
    module.why_not = lambda root=None, api=None: ""


@after("autopilot.providers._cuda_libraries")
def pretend_libraries(module: Any) -> None:
    """All there; nothing is loaded."""
    module.is_here = lambda name: True
    module.load = lambda cuda: None


@after("onnxruntime")
def pretend_providers(module: Any) -> None:
    """Sessions on the CPU that say they are on CUDA or TensorRT."""
    from fake_sessions import install

    install(module)


sys.meta_path.insert(0, Finder())
