"""NVIDIA's management library: the one place that imports pynvml (the package nvidia-ml-py, extra ``gpu``).

It talks to the driver, opens no CUDA context and takes no memory on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autopilot.errors import NotMeasurable

# What the driver shows where there is a device: on Linux, in containers, in WSL.
_DEVICES = ("proc/driver/nvidia/gpus/*", "dev/nvidia[0-9]*", "dev/dxg")
# Under WSL /dev/dxg is any maker's device; NVIDIA's driver lends its library to it.
_WSL_DRIVER = "usr/lib/wsl/lib/libcuda.so.1"
INSTALL = "pip install 'nvidia-ml-py>=12.535' brings what reads it"


@dataclass(frozen=True, slots=True)
class Devices:
    """NVIDIA devices of this machine: ``api`` is the initialised pynvml module, ``handles`` one a device."""

    api: Any
    handles: tuple[Any, ...]

    @property
    def errors(self) -> type[Exception]:
        """The exception that every call of ``api`` may raise."""
        error: type[Exception] = self.api.NVMLError
        return error


def open_devices(api: Any = None) -> Devices:
    """The devices the driver lists; ``api`` stands in for the pynvml module (tests).

    Raises:
        NotMeasurable: no pynvml, no driver, or no device.
    """
    if api is None:
        if find_spec("pynvml") is None:
            raise NotMeasurable(f"pynvml is not installed; {INSTALL}")
        import pynvml

        api = pynvml
    try:
        api.nvmlInit()
        handles = tuple(api.nvmlDeviceGetHandleByIndex(i) for i in range(api.nvmlDeviceGetCount()))
    except api.NVMLError as exc:
        raise NotMeasurable(f"NVML doesn't answer: {exc}") from exc
    if not handles:
        raise NotMeasurable("the NVIDIA driver lists no device")
    return Devices(api, handles)


def why_not(root: Path = Path("/"), api: Any = None) -> str:
    """Why NVML can't be read on this machine, or an empty text where it can."""
    if api is None and not any(any(root.glob(pattern)) for pattern in _DEVICES):
        return "no NVIDIA device: its driver lists none here"
    try:
        open_devices(api)
    except NotMeasurable as exc:
        return exc.message
    return ""


def names(root: Path = Path("/"), api: Any = None) -> tuple[str, ...]:
    """Names of this machine's NVIDIA devices by NVML; nameless where only their device files are seen.

    For where the driver's folder below /proc isn't shown: WSL, and containers that keep /proc to themselves.
    """
    files = sorted(f for pattern in ("dev/nvidia[0-9]*", "dev/dxg") for f in root.glob(pattern))
    if api is None and not files:
        return ()
    try:
        devices = open_devices(api)
        return tuple(_text(devices.api.nvmlDeviceGetName(handle)) for handle in devices.handles)
    except NotMeasurable:
        return tuple("NVIDIA device" for f in files if f.name != "dxg" or (root / _WSL_DRIVER).exists())


def driver(api: Any = None) -> str:
    """The driver's version by NVML, empty where it doesn't answer."""
    try:
        devices = open_devices(api)
        return _text(devices.api.nvmlSystemGetDriverVersion())
    except NotMeasurable:
        return ""


def _text(found: str | bytes) -> str:
    return found.decode() if isinstance(found, bytes) else found
