"""GPU memory of one process, as NVIDIA's driver accounts it; never a whole device's figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autopilot import nvml, plugins
from autopilot.contracts import facts_of
from autopilot.errors import NotMeasurable
from autopilot.profile import Placement


def runs_on_gpu(placement: Placement) -> bool:
    """Whether some node was given to an NVIDIA device."""
    return not _on_gpu().isdisjoint(placement.nodes)


def _on_gpu() -> frozenset[str]:
    """How placement calls the providers that run on NVIDIA devices: those whose engines hold for such a device."""
    there = [p for p in plugins.providers().values() if "gpus" in facts_of(p).hardware]
    return frozenset(str(getattr(p, "execution_provider", p.name)) for p in there)


def gpu_memory(
    pid: int, placement: Placement, *, api: Any = None, proc: Path = Path("/proc")
) -> tuple[int | None, str]:
    """Bytes that process ``pid`` holds on all NVIDIA devices; or None and the reason.

    ``api`` stands in for the pynvml module, ``proc`` for /proc (tests).
    """
    if not runs_on_gpu(placement):
        return None, "no node of the variant ran on an NVIDIA device"
    try:
        return _held(pid, nvml.open_devices(api), proc), ""
    except NotMeasurable as exc:
        return None, exc.message


def devices_of(pid: int, devices: nvml.Devices, proc: Path = Path("/proc")) -> nvml.Devices:
    """Those of ``devices`` on which process ``pid`` runs; a machine's only device where the driver doesn't tell.

    Raises:
        NotMeasurable: there are several, and the driver doesn't tell which one the process uses.
    """
    if len(devices.handles) == 1:
        return devices
    used = tuple(h for h in devices.handles if any(p.pid == pid for p in _processes(devices, h, proc)))
    if not used:
        raise NotMeasurable(_unlisted(pid, "which of the NVIDIA devices the variant uses"))
    return nvml.Devices(devices.api, used)


def _held(pid: int, devices: nvml.Devices, proc: Path) -> int:
    entries = [p for handle in devices.handles for p in _processes(devices, handle, proc) if p.pid == pid]
    if not entries:
        raise NotMeasurable(_unlisted(pid, "its memory"))
    if any(entry.usedGpuMemory is None for entry in entries):
        raise NotMeasurable("the driver lists the process but not its memory (usual under WSL and Windows)")
    return sum(int(entry.usedGpuMemory) for entry in entries)


def _processes(devices: nvml.Devices, handle: Any, proc: Path) -> list[Any]:
    """The compute processes on one device.

    Raises:
        NotMeasurable: NVML refuses, or the numbers it gives belong to another PID namespace.
    """
    try:
        found = list(devices.api.nvmlDeviceGetComputeRunningProcesses(handle))
    except devices.errors as exc:
        raise NotMeasurable(f"NVML doesn't list the processes of a device: {exc}") from exc
    # Numbers of another namespace may equal ours by chance: one that is nobody's here gives them away.
    strangers = [p.pid for p in found if not (proc / str(p.pid)).exists()]
    if strangers:
        raise NotMeasurable(
            f"the driver names processes of another PID namespace ({strangers[0]} is none here), "
            "so that this one's can't be told apart (usual in containers; run with the host's PID namespace)"
        )
    return found


def _unlisted(pid: int, what: str) -> str:
    return (
        f"the driver doesn't list the serving process ({pid}), so that {what} can't be told "
        "(usual in containers with a PID namespace of their own)"
    )
