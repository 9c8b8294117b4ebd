"""GPU memory by process: the driver's own account, or the reason why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilot import nvml
from autopilot.bench.gpu import devices_of, gpu_memory
from autopilot.errors import NotMeasurable
from autopilot.profile import Placement
from tests.unit.fake_nvml import FakeNvml

OURS, OTHER = 4242, 17
ON_GPU = Placement({"CUDAExecutionProvider": 3, "CPUExecutionProvider": 1})


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc that knows both processes."""
    for pid in (OURS, OTHER):
        (tmp_path / str(pid)).mkdir()
    return tmp_path


def test_memory_is_the_processs_own_on_all_devices(proc: Path) -> None:
    """Other processes' memory is left out; two devices of one process are added."""
    api = FakeNvml([[(OTHER, 900), (OURS, 100)], [(OURS, 20)]])

    assert gpu_memory(OURS, ON_GPU, api=api, proc=proc) == (120, "")


def test_variant_on_the_host_has_no_gpu_memory_and_asks_no_driver(proc: Path) -> None:
    """A CPU variant is not measurable, not zero: NVML isn't opened at all."""
    found, reason = gpu_memory(OURS, Placement({"CPUExecutionProvider": 3}), api=FakeNvml(fails="nvmlInit"), proc=proc)

    assert found is None
    assert "no node" in reason


@pytest.mark.parametrize(
    ("api", "said"),
    [
        (FakeNvml([[(OURS, None)]]), "WSL"),
        (FakeNvml([[]]), "doesn't list the serving process"),
        (FakeNvml([[(OTHER, 900)]]), "doesn't list the serving process"),
        (FakeNvml([[(OURS, 100), (999_999, 900)]]), "another PID namespace"),
        (FakeNvml([[(OURS, 100)]], fails="nvmlDeviceGetComputeRunningProcesses"), "Not Supported"),
        (FakeNvml([[(OURS, 100)]], fails="nvmlInit"), "NVML doesn't answer"),
        (FakeNvml([]), "no device"),
    ],
)
def test_missing_account_is_a_reason_never_the_whole_devices_figure(api: FakeNvml, said: str, proc: Path) -> None:
    """WSL tells no sizes, containers no processes or foreign ones, old drivers nothing."""
    found, reason = gpu_memory(OURS, ON_GPU, api=api, proc=proc)

    assert found is None
    assert said in reason


def test_devices_are_those_the_process_runs_on(proc: Path) -> None:
    """Energy is added up over the devices in use, not over all."""
    devices = nvml.open_devices(FakeNvml([[(OTHER, 9)], [(OURS, 1)], []]))

    assert devices_of(OURS, devices, proc).handles == (1,)


def test_only_device_counts_where_the_driver_lists_no_process(proc: Path) -> None:
    """With one device there is nothing to choose; with two there is, and nobody guesses."""
    one, two = (nvml.open_devices(FakeNvml([[]] * n)) for n in (1, 2))

    assert devices_of(OURS, one, proc).handles == (0,)
    with pytest.raises(NotMeasurable, match="which of the NVIDIA devices"):
        devices_of(OURS, two, proc)


def test_machine_without_device_says_so_before_pynvml_is_looked_for(tmp_path: Path) -> None:
    """The extra is no use there: the reason must not send people to install it."""
    assert nvml.why_not(tmp_path) == "no NVIDIA device: its driver lists none here"


def test_driver_that_answers_leaves_no_reason(tmp_path: Path) -> None:
    """An empty reason means that it can be read."""
    assert nvml.why_not(tmp_path, FakeNvml([[]])) == ""
    assert "Not Supported" in nvml.why_not(tmp_path, FakeNvml([[]], fails="nvmlInit"))


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without pynvml: the reason says what to install."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    monkeypatch.setattr(nvml, "find_spec", lambda name: None)

    assert "pip install 'nvidia-ml-py" in nvml.why_not(tmp_path)


def test_names_and_driver_are_asked_of_nvml(tmp_path: Path) -> None:
    """Where the driver's files aren't shown; a driver that doesn't answer leaves them open."""
    dead = FakeNvml(fails="nvmlInit")

    assert nvml.names(tmp_path, FakeNvml([(), ()])) == ("NVIDIA X0", "NVIDIA X1")
    assert nvml.driver(FakeNvml([()])) == "580.95.05"
    assert nvml.names(tmp_path, dead) == ()
    assert nvml.driver(dead) == ""
