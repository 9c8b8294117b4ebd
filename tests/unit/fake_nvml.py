"""A stand-in for the pynvml module: devices with processes and an energy counter, no driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any


class FakeNvml:
    """``processes[i]``: pairs of PID and bytes (None: not told) on device i; ``energy_mj(i)`` its counter."""

    class NVMLError(Exception):
        pass

    def __init__(
        self,
        processes: Sequence[Sequence[tuple[int, int | None]]] = ((),),
        *,
        energy_mj: Callable[[int], int] | None = None,
        fails: str = "",
    ) -> None:
        self._processes = processes
        self._energy_mj = energy_mj
        self._fails = fails

    def _maybe_fail(self, name: str) -> None:
        if name == self._fails:
            raise self.NVMLError("Not Supported")

    def nvmlInit(self) -> None:
        self._maybe_fail("nvmlInit")

    def nvmlDeviceGetCount(self) -> int:
        return len(self._processes)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"NVIDIA X{handle}"

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.95.05"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        self._maybe_fail("nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self._processes[handle]]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        self._maybe_fail("nvmlDeviceGetTotalEnergyConsumption")
        assert self._energy_mj is not None
        return self._energy_mj(handle)
