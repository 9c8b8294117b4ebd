"""NVML of the pretended device."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HELD_BYTES = 300_000_000
POWER_W = 50.0


class Nvml:
    """A device of ``POWER_W`` on which each process of this session's user holds ``HELD_BYTES``."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA Pretence"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.95.05"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        mine = []
        for path in Path("/proc").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # processes end at any moment
                if path.name.isdigit() and path.stat().st_uid == os.getuid():
                    mine.append(int(path.name))
        return [SimpleNamespace(pid=pid, usedGpuMemory=HELD_BYTES) for pid in mine]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return int(time.monotonic() * POWER_W * 1e3)
