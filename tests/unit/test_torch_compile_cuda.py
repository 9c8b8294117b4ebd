"""torch.compile on an NVIDIA device where there is none: reasons, options, what it is paired with."""

from __future__ import annotations

from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autopilot import plugins
from autopilot.bench.gpu import runs_on_gpu
from autopilot.contracts import Slot, facts_of
from autopilot.errors import Unsupported, VariantFailed
from autopilot.profile import Placement
from autopilot.providers import torch_compile_cuda as module
from autopilot.providers._ort import with_defaults
from autopilot.providers._ort_gpu import NO_DEVICE
from autopilot.recipe import Deployment, params_of
from autopilot.space_file import SpaceRequest, build_space
from autopilot.target import Target
from autopilot.testing import FakeProvider
from autopilot.torch_model import available, compiled

PROVIDER = module.PROVIDER
PLAIN = replace(Target.detect(), gpus=())
ON_GPU = replace(PLAIN, gpus=("NVIDIA H100",))
# As the wheels write them.
VERSION_FILE = (
    "from typing import Optional\n\n__version__ = '2.13.0{local}'\ncuda: Optional[str] = {cuda}\nhip = None\n"
)


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch with CUDA, Triton and a compiler were installed."""
    monkeypatch.setattr(module, "missing", lambda *names: None)
    monkeypatch.setattr(module, "cuda_version", lambda: "13.0")
    monkeypatch.setattr(module, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(module, "compiler", lambda: "/usr/bin/gcc")
    monkeypatch.setattr(module, "why_not_loaded", lambda name: None)


def settings(**options: Any) -> compiled.Settings:
    """What the provider makes of options."""
    deployment = Deployment(PROVIDER.name, threads=1, options=params_of(options))
    return module.settings(deployment, with_defaults(options, PROVIDER.parameters), "here")


@pytest.mark.usefixtures("complete")
def test_nothing_is_missing_where_all_is_there() -> None:
    """As far as can be seen without importing torch; opening a session checks the rest."""
    assert PROVIDER.usable(ON_GPU) is None


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize(
    ("name", "value", "target", "said", "command"),
    [
        ("missing", lambda *names: "torch is not installed.", ON_GPU, "not installed", "pip install 'torch>="),
        ("cuda_version", lambda: None, ON_GPU, "built without CUDA", "pip uninstall -y torch && pip install 'torch>="),
        ("compiler", lambda: "gcc", PLAIN, "no NVIDIA device", "nvidia-smi"),
        ("find_spec", lambda name: None, ON_GPU, "triton is not installed", "pip install triton"),
        ("compiler", lambda: None, ON_GPU, "C compiler", "apt-get install gcc"),
        ("why_not_loaded", lambda name: "torch can't be loaded", ON_GPU, "can't be loaded", "pip uninstall -y torch"),
    ],
)
def test_first_missing_part_is_named_with_its_command(
    name: str, value: Any, target: Target, said: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user mends one thing after the other, and installs nothing for a device that isn't there."""
    monkeypatch.setattr(module, name, value)

    reason = PROVIDER.usable(target) or ""

    assert said in reason
    assert command in reason


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize(
    ("name", "value"), [("missing", lambda *names: "torch is not installed."), ("cuda_version", lambda: None)]
)
def test_without_a_device_nothing_is_to_be_installed(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another build of torch is several GB, and mends nothing there."""
    monkeypatch.setattr(module, name, value)

    assert PROVIDER.usable(PLAIN) == NO_DEVICE


@pytest.mark.parametrize(("local", "cuda", "told"), [("+cpu", "None", None), ("+cu130", "'13.0'", "13.0")])
def test_cuda_of_a_build_is_read_without_importing_it(
    local: str, cuda: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent process lists providers and must stay light."""
    (tmp_path / "version.py").write_text(VERSION_FILE.format(local=local, cuda=cuda))
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(available, "find_spec", lambda name: spec)

    assert available.cuda_version() == told


def test_opening_without_a_device_is_refused_and_never_runs_on_the_host(tmp_path: Path) -> None:
    """Whatever usable() could not see."""
    torch = pytest.importorskip("torch", reason="the extra torch is missing")
    if torch.cuda.is_available():
        pytest.skip("there is a device here")

    with pytest.raises(VariantFailed, match="no CUDA device") as caught:
        PROVIDER.open(tmp_path / "model.onnx", Deployment(PROVIDER.name))

    assert caught.value.failure == "provider_missing"


def test_profiles_are_refused(tmp_path: Path) -> None:
    """Kernels of many operators each can't be timed by operator."""
    with pytest.raises(Unsupported, match="by operator"):
        PROVIDER.open(tmp_path / "model.onnx", Deployment(PROVIDER.name), profile_to=tmp_path / "p")


def test_defaults_compute_in_the_files_own_types() -> None:
    """Another precision there would hide what it costs; TensorFloat-32 is on as it is with the other providers."""
    found = settings()

    assert (found.precision, found.device, found.graphs, found.fixed) == ("float32", "cuda:0", True, True)
    assert (found.mode, found.tf32) == ("default", True)


def test_graphs_go_with_fixed_shapes_only() -> None:
    """A graph is of one set of shapes; without a bound on them each would hold memory."""
    assert not settings(shapes="dynamic").graphs
    assert PROVIDER.irrelevant(_with(shapes="dynamic")) == ("cuda_graphs",)


def test_tf32_matters_for_float32_only() -> None:
    """Halves have fewer bits than it."""
    assert PROVIDER.irrelevant(_with(precision="bfloat16")) == ("tf32",)
    assert PROVIDER.irrelevant(_with()) == ()


def _with(**options: Any) -> Deployment:
    return Deployment(PROVIDER.name, options=params_of(options))


def test_programs_are_kept_apart_by_option_and_surroundings() -> None:
    """A key that misses one would serve a float16 program as a float32 one."""
    keys = {
        settings(**options).key
        for options in ({}, {"precision": "float16"}, {"tf32": False}, {"device": 1}, {"cuda_graphs": False})
    }

    assert len(keys) == 5
    facts = facts_of(PROVIDER)
    versions = {"torch": "2.13.0", "triton": "3.6.0"}
    others = [{**versions, "triton": "3.7.0"}, {**versions, "torch": "2.13.1"}]
    assert all(
        facts.engine_key(replace(ON_GPU, versions=versions)) != facts.engine_key(replace(ON_GPU, versions=v))
        for v in others
    )
    assert facts.engine_key(ON_GPU) != facts.engine_key(replace(ON_GPU, gpus=("another",)))


def test_memory_and_energy_are_the_devices() -> None:
    """By the provider's own word: the benches know no list of names."""
    facts = facts_of(PROVIDER)

    assert "gpu_memory_mb" in facts.memory_axes
    assert "nvml" in facts.energy_counters
    assert runs_on_gpu(Placement({PROVIDER.execution_provider: 3}))
    assert not runs_on_gpu(Placement({compiled.NAME: 3}))


def test_what_stays_on_the_host_is_counted_there() -> None:
    """A fallback has a name of its own, so that the share on the device is below one."""
    found = compiled.placed({"cuda": 3, "cpu": 1}, 5)

    assert found.share(PROVIDER.execution_provider) == pytest.approx(0.8)
    assert compiled.placed({"cuda": 3}, 5).share(PROVIDER.execution_provider) == 1.0


def test_paired_with_float_files_of_onnxs_own_operators(tmp_path: Path) -> None:
    """The real plug-ins: quantized files and ONNX Runtime's operators don't become PyTorch's, by the facts alone."""
    path = tmp_path / "space.yaml"
    path.write_text("techniques: [fuse, weight_only, float16, static_int8, dynamic_int8, mixed_int8]")
    there = SimpleNamespace(
        name=PROVIDER.name, parameters=PROVIDER.parameters, facts=facts_of(PROVIDER), usable=lambda target: None
    )
    made: dict[str, Any] = {"cpu": FakeProvider("cpu"), PROVIDER.name: there}
    request = SpaceRequest(("cpu", PROVIDER.name), 1, (1,))
    space = build_space(path, request, target=ON_GPU, techniques=plugins.techniques(), providers=made)

    assert space.slot(Slot.PRECISION, PROVIDER.name) == ("float16",)
    assert space.slot(Slot.GRAPH, PROVIDER.name) == ("fuse",)
    assert "static_int8" in space.slot(Slot.PRECISION, "cpu")
