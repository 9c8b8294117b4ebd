"""What an environment needs to load a model from MLflow: the provider's libraries, and no clash among them."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

import autopilot
from autopilot import plugins
from autopilot.contracts import ProviderFacts
from autopilot.testing import FakeProvider
from autopilot.tracking import requirements as module

OWN = f"model-autopilot=={autopilot.__version__}"
HERE = {
    "onnxruntime": "1.32.0",
    "openvino": "2026.1.0",
    "torch": "2.13.0+cpu",
    "triton": "3.7.0",
    "numpy": "2.4.6",
    "onnx": "1.23.2",
    "acme-runtime": "2.0",
    "acme-plugin": "0.3",
    "onnxruntime-ep-nv-tensorrt-rtx": "0.5.0",
}
ON_GPU = {**{k: v for k, v in HERE.items() if k != "onnxruntime"}, "onnxruntime-gpu": "1.31.1", "tensorrt": "10.14"}
SWAP = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu==1.31.1"


def installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    """As if these distributions were installed, and no other."""
    monkeypatch.setattr(module, "installed_versions", lambda: versions)
    monkeypatch.setattr(module, "without_shadowed", lambda told: told)
    monkeypatch.setattr(module, "version_of_installed", lambda name: versions.get(name, ""))


@pytest.mark.parametrize(
    ("provider", "versions", "wanted"),
    [
        ("cpu", HERE, ["onnxruntime==1.32.0"]),
        ("openvino", HERE, ["openvino==2026.1.0"]),
        ("torch_compile", HERE, ["torch==2.13.0"]),
        ("torch_compile_cuda", HERE, ["torch==2.13.0", "triton==3.7.0"]),
        ("tensorrt_rtx", HERE, ["onnxruntime==1.32.0", "onnxruntime-ep-nv-tensorrt-rtx==0.5.0"]),
        ("cuda", ON_GPU, []),
        ("tensorrt", ON_GPU, ["tensorrt==10.14"]),
        ("cpu", ON_GPU, []),
        ("openvino", ON_GPU, ["openvino==2026.1.0"]),
    ],
)
def test_requirements_are_the_providers_own_libraries(
    provider: str, versions: dict[str, str], wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly what loading needs: what is missing fails there, what is too much may clash."""
    installed(monkeypatch, versions)

    assert module.requirements(provider) == [OWN, *wanted, "numpy==2.4.6"]


def test_requirements_name_the_package_that_brings_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nobody knows the provider's name."""
    entry = EntryPoint("acme", "acme.provider", "autopilot.providers")
    entry = entry._for(SimpleNamespace(name="acme-plugin"))  # type: ignore[attr-defined]
    acme = FakeProvider("acme", facts=ProviderFacts(libraries=("acme-runtime",)))
    installed(monkeypatch, HERE)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    monkeypatch.setattr(plugins, "providers", lambda: {"acme": acme})

    assert module.requirements("acme") == [OWN, "acme-runtime==2.0", "acme-plugin==0.3", "numpy==2.4.6"]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "cpu"])
def test_gpu_build_is_told_in_a_comment_since_pip_would_unpack_the_plain_one_over_it(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """model-autopilot requires onnxruntime, the same module: no line of pip puts one in the other's place."""
    installed(monkeypatch, ON_GPU)
    (tmp_path / "requirements.txt").write_text("numpy==2.4.6")

    module.say_by_hand(provider, tmp_path)

    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert lines[0] == "numpy==2.4.6"
    assert all(line.startswith("#") for line in lines[1:])
    assert lines[-1] == f"# {SWAP}"


@pytest.mark.parametrize(("provider", "versions"), [("cpu", HERE), ("openvino", HERE), ("openvino", ON_GPU)])
def test_nothing_is_told_where_the_requirements_suffice(
    provider: str, versions: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command to type for nothing."""
    installed(monkeypatch, versions)
    (tmp_path / "requirements.txt").write_text("numpy==2.4.6\n")

    module.say_by_hand(provider, tmp_path)

    assert (tmp_path / "requirements.txt").read_text() == "numpy==2.4.6\n"
