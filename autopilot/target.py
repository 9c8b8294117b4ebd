"""Target: hardware and software fingerprint of the machine that measures."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from autopilot import counters, nvml
from autopilot.recipe import digest

# The flags that change which kernels run, or how; all others would only make fingerprints differ.
_X86_FLAGS = (
    "sse4_2", "fma", "f16c", "avx", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
    "avx_vnni_int8", "avx512_bf16", "avx512_fp16", "avx10", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
)  # fmt: skip
_ARM_FLAGS = ("asimd", "fphp", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "svei8mm", "sme", "sme2")
_KNOWN_FLAGS = frozenset(_X86_FLAGS + _ARM_FLAGS)
# Instructions that add up four 8-bit products into 32 bits at once: where they are missing, int8 gains little.
_INT8_DOT = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm", "svei8mm"})
# macOS names features, not flags.
_MACOS_FLAGS = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512_vnni",
    "hw.optional.neon": "asimd",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}
_DRIVER_VERSION = re.compile(r"\b\d{3,}\.\d+(?:\.\d+)*\b")
DISTRIBUTIONS = (
    "model-autopilot", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "onnx", "onnx-ir", "onnxscript",
    "onnxslim", "numpy", "optuna", "mlflow", "scikit-learn", "torch", "triton", "neural-compressor-pt",
)  # fmt: skip
# Distributions of the same module.
_ONE_MODULE = frozenset({"onnxruntime", "onnxruntime-gpu"})


@dataclass(frozen=True, slots=True)
class Target:
    """The machine, as far as it decides what can run and how fast.

    ``cores`` are those this process may use: affinity and a container's quota are respected.
    ``cpu_flags`` are Linux's names, sorted, only those that matter to kernels. ``gpus`` are NVIDIA
    devices by name, ``gpu_driver`` the version of their driver, empty without one. ``versions`` holds the
    installed ones of the libraries that matter.
    ``energy_source`` is ``rapl``, ``nvml``, ``rapl+nvml`` or None, and then ``energy_reason`` says why;
    ``gpu_memory_source`` is ``nvml`` or None, with its reason likewise. ``provider`` is what a variant is to run on
    where techniques are asked what is worth trying; it is no property of the machine, so no part of its JSON.
    """

    machine: str
    cpu: str
    physical_cores: int
    cores: int
    memory_bytes: int
    cpu_flags: tuple[str, ...]
    gpus: tuple[str, ...]
    os: str
    python: str
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    energy_source: str | None = None
    energy_reason: str = ""
    gpu_memory_source: str | None = None
    gpu_memory_reason: str = ""
    provider: str = "cpu"
    gpu_driver: str = ""

    @classmethod
    def detect(cls) -> Target:
        """This machine, now; takes milliseconds, imports no library it reports on."""
        cores = available_cores()
        gpu_reason = nvml.why_not()
        source, reason = energy_source(gpu_reason=gpu_reason)
        gpus = nvidia_gpus()
        return cls(
            machine=platform.machine() or "unknown",
            cpu=cpu_model(),
            physical_cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or cores,
            cores=cores,
            memory_bytes=memory_bytes(),
            cpu_flags=cpu_flags(),
            gpus=gpus,
            gpu_driver=nvidia_driver() if gpus else "",
            os=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            versions=without_shadowed(installed_versions()),
            energy_source=source,
            energy_reason=reason,
            gpu_memory_source=None if gpu_reason else counters.NVML,
            gpu_memory_reason=gpu_reason,
        )

    @property
    def int8_dot(self) -> bool:
        """Whether the CPU has dot-product instructions for 8-bit integers (VNNI, AMX, dotprod, i8mm)."""
        return not _INT8_DOT.isdisjoint(self.cpu_flags)

    def running(self, provider: str) -> Target:
        """This machine with ``provider`` as what runs the variant: kernels of one are not those of another."""
        return replace(self, provider=provider)

    def has(self, flag: str) -> bool:
        """Whether the CPU has an instruction set, by Linux's name."""
        return flag in self.cpu_flags

    def version_of(self, distribution: str) -> str:
        """The installed version, empty where it isn't: of the known ones, and of what plug-ins name beside them."""
        return self.versions.get(distribution) or version_of_installed(distribution)

    @property
    def clash(self) -> str | None:
        """What is wrong with the set of installed libraries, or None.

        onnxruntime and onnxruntime-gpu install the same module; the last one wins, silently.
        """
        if set(self.versions) >= _ONE_MODULE:
            return (
                "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
                "pip uninstall both, then install the one you need"
            )
        return None

    @property
    def fingerprint(self) -> str:
        """12 hex digits of the hardware: measurements under another one are not comparable."""
        gib = round(self.memory_bytes / 2**30)
        hardware = [self.machine, self.cpu, self.physical_cores, self.cores, gib, self.cpu_flags, self.gpus]
        return digest(hardware)[:12]

    def to_json(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "machine": self.machine,
            "cpu": self.cpu,
            "physical_cores": self.physical_cores,
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "cpu_flags": list(self.cpu_flags),
            "int8_dot": self.int8_dot,
            "gpus": list(self.gpus),
            "gpu_driver": self.gpu_driver,
            "os": self.os,
            "python": self.python,
            "versions": dict(self.versions),
            "energy": {"source": self.energy_source, "reason": self.energy_reason},
            "gpu_memory": {"source": self.gpu_memory_source, "reason": self.gpu_memory_reason},
        }


def _read(path: Path) -> str:
    """The text of a system file, empty where it isn't there or isn't readable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpuinfo(key: str, text: str) -> str:
    """The first value of ``key`` in the text of /proc/cpuinfo."""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == key:
            return value.strip()
    return ""


def _sysctl(name: str) -> str:
    """One value of macOS's sysctl, empty where there is none."""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def cpu_model(root: Path = Path("/")) -> str:
    """The CPU's name for people."""
    text = _read(root / "proc/cpuinfo")
    found = _cpuinfo("model name", text) or _cpuinfo("Model", text)
    if not found and sys.platform == "darwin":
        found = _sysctl("machdep.cpu.brand_string")
    return found or platform.processor() or platform.machine() or "unknown"


def cpu_flags(root: Path = Path("/")) -> tuple[str, ...]:
    """The instruction sets that matter to kernels, sorted; empty where the system names none."""
    text = _read(root / "proc/cpuinfo")
    given = set((_cpuinfo("flags", text) or _cpuinfo("Features", text)).split())
    if not given and sys.platform == "darwin":
        given = {flag for name, flag in _MACOS_FLAGS.items() if _sysctl(name) == "1"}
    return tuple(sorted(given & _KNOWN_FLAGS))


def available_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: affinity, then the container's quota; at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity calls
        allowed = psutil.cpu_count() or 1
    quota = cgroup_cores(root)
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """This process's control group and those around it, innermost first, for both hierarchies."""
    folders: list[Path] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        inner = base / path.lstrip("/")
        folders += [p for p in (inner, *inner.parents) if p == base or base in p.parents]
    return folders or [root / "sys/fs/cgroup", root / "sys/fs/cgroup" / controller]


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """Cores the tightest control group around this process grants, or None without a quota."""
    found = []
    for folder in _cgroup_folders(root, "cpu"):
        second = _read(folder / "cpu.max").split()
        first = [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        quota, period = second if len(second) == 2 else first
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_bytes(root: Path = Path("/")) -> int:
    """Memory this process may use: the machine's, or less where a control group says so."""
    limits = [psutil.virtual_memory().total]
    for name in ("memory.max", "memory.limit_in_bytes"):
        for folder in _cgroup_folders(root, "memory"):
            text = _read(folder / name).strip()
            if text.isdigit() and int(text) > 0:
                limits.append(int(text))
    return min(limits)


def nvidia_gpus(root: Path = Path("/")) -> tuple[str, ...]:
    """Names of NVIDIA devices, as the driver lists them."""
    folders = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    return tuple(_cpuinfo("Model", _read(f)) or "NVIDIA device" for f in folders) or nvml.names(root)


def nvidia_driver(root: Path = Path("/")) -> str:
    """The version of NVIDIA's driver, empty where there is none."""
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep …"; open modules say more before it.
    found = _DRIVER_VERSION.search(_cpuinfo("NVRM version", _read(root / "proc/driver/nvidia/version")))
    return found.group() if found else nvml.driver()


def installed_versions() -> dict[str, str]:
    """Versions of the libraries that matter, without importing any."""
    found = {name: version_of_installed(name) for name in DISTRIBUTIONS}
    return {name: told for name, told in found.items() if told}


def version_of_installed(distribution: str) -> str:
    """The version of an installed distribution, empty where it isn't."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def energy_source(root: Path = Path("/"), gpu_reason: str | None = None) -> tuple[str | None, str]:
    """The hardware energy counters that can be read here, or None and why there is none.

    ``gpu_reason``: what ``nvml.why_not`` said, where it was asked already.
    """
    cpu_reason = counters.rapl_reason(root)
    gpu_reason = nvml.why_not(root) if gpu_reason is None else gpu_reason
    found = [name for name, reason in ((counters.RAPL, cpu_reason), (counters.NVML, gpu_reason)) if not reason]
    if found:
        return "+".join(found), ""
    return None, cpu_reason if not nvidia_gpus(root) else f"{cpu_reason}; {gpu_reason}"


def without_shadowed(versions: Mapping[str, str]) -> dict[str, str]:
    """``versions`` without a distribution whose module another one's hides, in a folder that Python looks into first.

    So in an environment made over another one: onnxruntime-gpu in the inner one, onnxruntime in the outer one.
    """
    spec = find_spec("onnxruntime") if set(versions) >= _ONE_MODULE else None
    if spec is None:
        return dict(versions)
    imported = {Path(folder).resolve().parent for folder in spec.submodule_search_locations or ()}
    homes = {name: Path(str(distribution(name).locate_file(""))).resolve() for name in _ONE_MODULE}
    hidden = {name for name, home in homes.items() if home not in imported}
    return {name: told for name, told in versions.items() if name not in hidden}
