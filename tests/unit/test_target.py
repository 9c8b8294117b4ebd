"""The target: what is read of a machine, from made-up system files."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autopilot import target as module
from autopilot.target import Target, available_cores, cgroup_cores, cpu_flags, cpu_model, energy_source, memory_bytes

X86 = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu sse4_2 avx avx2 avx512f avx512_vnni amx_int8\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm sha1\n"


@pytest.fixture
def target() -> Target:
    """A machine that needs no machine."""
    return Target("x86_64", "CPU", 2, 2, 8 << 30, ("avx2",), (), "Linux 6", "3.11", {"onnxruntime": "1.32"})


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def package(root: Path, energy_uj: str = "123456\n") -> None:
    """A processor package with an energy counter, as Linux shows it."""
    write(root, "sys/class/powercap/intel-rapl:0/name", "package-0\n")
    write(root, "sys/class/powercap/intel-rapl:0/energy_uj", energy_uj)


def test_detect_describes_this_machine() -> None:
    """The record is whole wherever the tests run."""
    found = Target.detect()

    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 1 << 20
    assert found.versions["onnxruntime"]
    assert (found.energy_source is None) == bool(found.energy_reason)
    assert len(found.fingerprint) == 12
    assert found == Target.detect()
    assert hash(found) == hash(Target.detect())


def test_x86_flags_are_those_that_matter(tmp_path: Path) -> None:
    """Flags that choose kernels are kept, the hundred others dropped."""
    write(tmp_path, "proc/cpuinfo", X86)

    assert cpu_flags(tmp_path) == ("amx_int8", "avx", "avx2", "avx512_vnni", "avx512f", "sse4_2")
    assert cpu_model(tmp_path) == "Some CPU @ 2.0GHz"


def test_arm_features_are_read_as_flags(tmp_path: Path) -> None:
    """ARM's kernel writes Features where x86's writes flags."""
    write(tmp_path, "proc/cpuinfo", ARM)

    assert cpu_flags(tmp_path) == ("asimd", "asimddp", "i8mm")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(("avx2",), False), (("avx2", "avx_vnni"), True), (("amx_int8",), True), (("asimddp",), True), ((), False)],
)
def test_int8_dot_needs_dot_product_instructions(target: Target, flags: tuple[str, ...], expected: bool) -> None:
    """VNNI, AMX or dotprod; AVX2 alone has none."""
    assert replace(target, cpu_flags=flags).int8_dot is expected


def test_affinity_bounds_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores that this process may not use don't count."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 5}, raising=False)

    assert available_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1.0),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/box\n3:memory:/\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            1.5,
        ),
        (
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
    ],
)
def test_cgroup_quota_is_the_tightest_around_the_process(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    """Both hierarchies are read, and every group from the process's own outwards."""
    for path, text in files.items():
        write(tmp_path, path, text)

    assert cgroup_cores(tmp_path) == expected


def test_quota_below_one_core_counts_as_one(tmp_path: Path) -> None:
    """There is always one core to run on."""
    write(tmp_path, "sys/fs/cgroup/cpu.max", "20000 100000\n")

    assert available_cores(tmp_path) == 1


def test_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    """A limit of the control group goes before the machine's memory."""
    write(tmp_path, "sys/fs/cgroup/memory.max", f"{256 << 20}\n")

    assert memory_bytes(tmp_path) == 256 << 20


def test_readable_rapl_counter_is_the_energy_source(tmp_path: Path) -> None:
    """Only reading a counter tells that it can be read."""
    package(tmp_path)

    assert energy_source(tmp_path) == ("rapl", "")


def test_unreadable_rapl_counter_is_no_energy_source(tmp_path: Path) -> None:
    """A counter that gives nothing when read gives the reason, not a number."""
    package(tmp_path, energy_uj="")

    source, reason = energy_source(tmp_path)

    assert source is None
    assert "not readable" in reason


def test_core_domain_alone_is_no_energy_source(tmp_path: Path) -> None:
    """A domain inside of a package leaves most of the energy out."""
    write(tmp_path, "sys/class/powercap/intel-rapl:0:0/name", "core\n")
    write(tmp_path, "sys/class/powercap/intel-rapl:0:0/energy_uj", "123456\n")

    assert energy_source(tmp_path)[0] is None


def test_gpu_counter_stands_beside_the_packages_where_both_can_be_read(tmp_path: Path) -> None:
    """What NVML said before is taken over; without a package counter the device's is the only one."""
    assert energy_source(tmp_path, gpu_reason="") == ("nvml", "")

    package(tmp_path)

    assert energy_source(tmp_path, gpu_reason="") == ("rapl+nvml", "")


def test_machine_with_a_device_gives_both_reasons(tmp_path: Path) -> None:
    """Neither counter can be read: the reason says it of both."""
    write(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA H200\nIRQ: 3\n")

    source, reason = energy_source(tmp_path, gpu_reason="pynvml is not installed")

    assert source is None
    assert "RAPL" in reason
    assert "pynvml is not installed" in reason


def test_machine_without_counter_says_why(tmp_path: Path) -> None:
    """No source always comes with a reason."""
    source, reason = energy_source(tmp_path)

    assert source is None
    assert reason


def test_fingerprint_follows_hardware_alone(target: Target) -> None:
    """Another CPU is another target; another library version is not."""
    assert replace(target, versions={}, python="3.12", os="Linux 7").fingerprint == target.fingerprint
    assert replace(target, cores=1).fingerprint != target.fingerprint
    assert replace(target, cpu_flags=("avx2", "avx_vnni")).fingerprint != target.fingerprint


def test_both_runtimes_installed_are_a_clash(target: Target) -> None:
    """onnxruntime and onnxruntime-gpu overwrite each other."""
    assert target.clash is None
    assert "uninstall" in str(replace(target, versions={"onnxruntime": "1", "onnxruntime-gpu": "1"}).clash)


def test_gpus_are_named_as_the_driver_lists_them(tmp_path: Path) -> None:
    """NVIDIA's driver names its devices in a file each."""
    write(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA H200\nIRQ: 3\n")

    assert module.nvidia_gpus(tmp_path) == ("NVIDIA H200",)


def test_device_files_tell_of_gpus_where_the_drivers_folder_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers that keep /proc to themselves: without a name is better than not at all."""
    monkeypatch.setattr("autopilot.nvml.find_spec", lambda name: None)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        write(tmp_path, f"dev/{name}", "")

    assert module.nvidia_gpus(tmp_path) == ("NVIDIA device", "NVIDIA device")


def test_device_of_wsl_is_nvidias_where_its_driver_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/dxg alone is any maker's."""
    monkeypatch.setattr("autopilot.nvml.find_spec", lambda name: None)
    write(tmp_path, "dev/dxg", "")
    assert module.nvidia_gpus(tmp_path) == ()

    write(tmp_path, "usr/lib/wsl/lib/libcuda.so.1", "")
    assert module.nvidia_gpus(tmp_path) == ("NVIDIA device",)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (builder@host)",
    ],
)
def test_version_of_the_driver_is_read_from_its_own_file(tmp_path: Path, line: str) -> None:
    """Of the open and of the closed modules; the compiler's version stands below."""
    write(tmp_path, "proc/driver/nvidia/version", f"{line}\nGCC version:  gcc version 12.3.0\n")

    assert module.nvidia_driver(tmp_path) == "580.95.05"


def test_version_of_a_library_that_a_plugin_names_is_found(target: Target) -> None:
    """Caches of engines depend on it, whoever wrote the provider."""
    assert target.version_of("pytest") == pytest.__version__
    assert target.version_of("no-such-distribution") == ""


def test_json_holds_everything_a_reader_of_results_needs(target: Target) -> None:
    """The environment in result.json identifies the machine and says why energy is missing."""
    found = replace(target, energy_reason="no counter").to_json()

    assert found["fingerprint"] == target.fingerprint
    assert found["energy"] == {"source": None, "reason": "no counter"}
    assert found["gpu_memory"] == {"source": target.gpu_memory_source, "reason": target.gpu_memory_reason}
    assert found["int8_dot"] is False


@pytest.mark.parametrize(
    ("gpu_home", "clashes", "kept"),
    [("inner", False, {"onnxruntime-gpu"}), ("outer", True, {"onnxruntime", "onnxruntime-gpu"})],
)
def test_distribution_in_an_outer_environment_is_no_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, gpu_home: str, clashes: bool, kept: set[str]
) -> None:
    """Folders that Python looks into first hide what lies behind; in one folder the files overwrite each other."""
    for home, name in (("outer", "onnxruntime"), (gpu_home, "onnxruntime-gpu")):
        write(tmp_path, f"{home}/onnxruntime/__init__.py", "")
        write(tmp_path, f"{home}/{name.replace('-', '_')}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "inner"), str(tmp_path / "outer")])
    monkeypatch.setattr(module, "DISTRIBUTIONS", ("onnxruntime", "onnxruntime-gpu"))

    versions = module.without_shadowed(module.installed_versions())

    assert set(versions) == kept
    assert (replace(target, versions=versions).clash is not None) is clashes
