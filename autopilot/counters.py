"""Energy counters of the machine: which there are, what each includes, and reading them without a jump.

``rapl`` is the kernel's powercap interface; AMD's processors stand under Intel's names there. ``nvml`` is
the counter of NVIDIA devices since Volta. Both count for whoever uses the hardware, not for one process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autopilot import nvml
from autopilot.errors import NotMeasurable

RAPL, NVML = "rapl", "nvml"
_UJ_PER_MJ = 1e3


class Counter(Protocol):
    """One hardware energy counter, or several added up.

    ``source`` names it (``rapl``, ``nvml``, ``rapl+nvml``); ``scope`` says what its figure includes.
    """

    @property
    def source(self) -> str: ...

    @property
    def scope(self) -> str: ...

    @property
    def parts(self) -> tuple[Counter, ...]:
        """The counters of different hardware that this one adds up; none where it is one kind."""
        ...

    @property
    def registers(self) -> int:
        """How many hardware counters of the same kind are added up, each updated by itself."""
        ...

    def read_mj(self) -> float:
        """Millijoules since some moment in the past; never falls.

        Raises:
            NotMeasurable: it can't be read.
        """
        ...


# ---- the processor's package ------------------------------------------------------------------------


def rapl_packages(root: Path = Path("/")) -> list[Path]:
    """Folders of the package domains, one a socket (or die), whether they can be read or not.

    Domains inside of a package (core, uncore, dram) are part of it or left out by it, and ``psys`` holds the
    packages again: adding any of them would count twice.
    """
    folders = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    return [f for f in folders if f.name.count(":") == 1 and _text(f / "name").startswith("package")]


def rapl_reason(root: Path = Path("/")) -> str:
    """Why the package counters can't be read, or an empty text where they can."""
    packages = rapl_packages(root)
    if not packages and not sys.platform.startswith("linux"):
        return f"energy counters of the processor are read on Linux only, this is {sys.platform}"
    if not packages:
        return "no RAPL counter under /sys/class/powercap (usual in virtual machines and containers)"
    for folder in packages:
        # The mode bits lie for root in a container; only reading tells.
        if not _text(folder / "energy_uj").isdigit():
            return (
                f"{folder / 'energy_uj'} is there but not readable by this user "
                "(root alone may read it on most systems; an administrator can allow it)"
            )
    return ""


@dataclass(slots=True)
class RaplCounter:
    """All processor packages of the machine, added up; a counter that wraps around goes on."""

    folders: Sequence[Path]
    source: str = RAPL
    scope: str = "processor packages: all cores and processes of the machine, without DRAM"
    parts: tuple[Counter, ...] = ()
    _last_uj: dict[Path, int] = field(default_factory=dict)
    _total_uj: int = 0

    @property
    def registers(self) -> int:
        return len(self.folders)

    def read_mj(self) -> float:
        for folder in self.folders:
            now = _micro(folder / "energy_uj")
            last = self._last_uj.get(folder, now)
            # One wrap at most lies between two readings: a range lasts for minutes at full power.
            self._total_uj += now - last if now >= last else now - last + _micro(folder / "max_energy_range_uj")
            self._last_uj[folder] = now
        return self._total_uj / _UJ_PER_MJ


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _micro(path: Path) -> int:
    text = _text(path)
    if not text.isdigit():
        raise NotMeasurable(f"{path} can't be read any more")
    return int(text)


# ---- NVIDIA devices ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NvmlCounter:
    """Some NVIDIA devices, added up."""

    devices: nvml.Devices
    source: str = NVML
    parts: tuple[Counter, ...] = ()

    @property
    def scope(self) -> str:
        return f"NVIDIA devices in use: {self.registers}, whole boards, all processes on them"

    @property
    def registers(self) -> int:
        return len(self.devices.handles)

    def read_mj(self) -> float:
        read = self.devices.api.nvmlDeviceGetTotalEnergyConsumption
        try:
            return float(sum(read(handle) for handle in self.devices.handles))
        except self.devices.errors as exc:
            raise NotMeasurable(f"NVML's energy counter doesn't answer: {exc}") from exc


@dataclass(frozen=True, slots=True)
class SumCounter:
    """Counters of different hardware, added up."""

    parts: tuple[Counter, ...]

    @property
    def registers(self) -> int:
        return sum(part.registers for part in self.parts)

    @property
    def source(self) -> str:
        return "+".join(part.source for part in self.parts)

    @property
    def scope(self) -> str:
        return " and ".join(part.scope for part in self.parts)

    def read_mj(self) -> float:
        return sum(part.read_mj() for part in self.parts)
