"""What a study's figures are made with: of what the spec allows and this machine can run, and of nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from autopilot import plugins
from autopilot.cache.code import code_digest
from autopilot.contracts import ProviderFacts, Slot
from autopilot.search.versions import made_with
from autopilot.spec import Problem, TargetSpec
from autopilot.target import Target
from autopilot.testing import FakeProvider
from tests.unit.search_support import setup_of, technique

VERSIONS = {"onnx": "1", "onnxruntime": "1", "torch": "1", "openvino": "1", "acme-runtime": "1.0", "onnx-ir": "1"}
HERE = replace(Target.detect(), versions=VERSIONS, gpu_driver="580.1")
ACME = "acme_provider_of_a_test"


class Acme(FakeProvider):
    """A provider of somebody else."""


Acme.__module__ = ACME


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three providers of ours, one of them missing, and one of another package, whose file is returned."""
    file = tmp_path / "acme.py"
    file.write_text("version = 1\n")
    module = ModuleType(ACME)
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, ACME, module)
    known = {
        "cpu": FakeProvider("cpu", facts=ProviderFacts()),
        "openvino": FakeProvider("openvino", facts=ProviderFacts(libraries=("openvino",))),
        "gpu": FakeProvider("gpu", facts=ProviderFacts(libraries=("torch",), hardware=("gpus", "gpu_driver"))),
        "missing": FakeProvider("missing", reason="it is not here", facts=ProviderFacts(libraries=("nothing",))),
        "acme": Acme("acme", facts=ProviderFacts(libraries=("acme-runtime",))),
    }
    steps = {"slim": technique("slim", Slot.GRAPH), "rare": technique("rare", Slot.STRUCTURE, on_by_default=False)}
    steps["rare"] = replace(steps["rare"], libraries=("onnx-ir",))
    entry = EntryPoint("acme", ACME, "autopilot.providers")._for(SimpleNamespace(name="acme-package"))  # type: ignore[attr-defined]
    monkeypatch.setattr(plugins, "providers", lambda: known)
    monkeypatch.setattr(plugins, "techniques", lambda: steps)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == "autopilot.providers" else [])
    code_digest.cache_clear()
    return file


def problem_of(folder: Path, *providers: str, space: str = "") -> Problem:
    """A spec that allows ``providers``."""
    (folder / "space.yaml").write_text(space)
    return replace(setup_of(folder).problem, target=TargetSpec(providers=providers))


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The words that a user reads."""
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def with_(**versions: str) -> Target:
    """This machine with other libraries."""
    return replace(HERE, versions={**VERSIONS, **{name.replace("_", "-"): told for name, told in versions.items()}})


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    ("providers", "there", "words"),
    [
        (("cpu",), with_(tensorrt="10.9", openvino="2", torch="2", acme_runtime="2.0"), []),
        (("cpu",), replace(HERE, gpu_driver="590.2"), []),
        (("cpu", "missing"), with_(nothing="2"), []),
        (("cpu",), with_(onnxruntime="2"), ["library onnxruntime"]),
        (("cpu", "openvino"), with_(openvino="2"), ["library openvino"]),
        (("cpu", "acme"), with_(acme_runtime="2.0"), ["library acme-runtime"]),
        (("cpu", "acme"), with_(acme_package="2.0"), ["library acme-package"]),
        (("cpu", "gpu"), replace(HERE, gpu_driver="590.2"), ["GPU driver"]),
        (("cpu", "gpu"), with_(torch="2"), ["library torch"]),
    ],
)
def test_what_the_spec_allows_counts_and_nothing_else(
    providers: tuple[str, ...], there: Target, words: list[str], tmp_path: Path
) -> None:
    """Finished trials are neither mixed with others' nor thrown away for a library that they never used."""
    problem = problem_of(tmp_path, *providers)

    assert changed(made_with(problem, HERE), made_with(problem, there)) == words


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    ("space", "words"),
    [("", []), ("techniques: [rare]", ["library onnx-ir"]), ("techniques: {rare: {}}", ["library onnx-ir"])],
)
def test_libraries_of_the_spaces_techniques_count(space: str, words: list[str], tmp_path: Path) -> None:
    """A space that names none has those that are on by default."""
    problem = problem_of(tmp_path, "cpu", space=space)

    assert changed(made_with(problem, HERE), made_with(problem, with_(onnx_ir="2"))) == words


def test_code_of_a_provider_of_somebody_else_counts_where_it_is_allowed(plugged: Path, tmp_path: Path) -> None:
    """An edited plug-in gives other figures; its version says nothing of that."""
    allowed, other = problem_of(tmp_path, "cpu", "acme"), problem_of(tmp_path, "cpu")
    before = made_with(allowed, HERE), made_with(other, HERE)
    plugged.write_text("version = 2\n")
    code_digest.cache_clear()

    assert changed(before[0], made_with(allowed, HERE)) == ["code of provider acme"]
    assert changed(before[1], made_with(other, HERE)) == []


@pytest.mark.usefixtures("plugged")
def test_provider_that_became_usable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is more to try then, and the baseline may be another."""
    problem = problem_of(tmp_path, "cpu", "missing")
    before = made_with(problem, HERE)
    monkeypatch.setattr(FakeProvider, "usable", lambda self, target: None)

    assert changed(before, made_with(problem, HERE)) == ["provider missing", "library nothing"]


def test_library_that_no_package_brings_is_part_of_engine_and_question() -> None:
    """TensorRT comes as an archive as well."""
    told: dict[str, Any] = {"TensorRT": "libnvinfer.so.10.14.1"}
    facts = ProviderFacts(libraries=("onnx",), unpackaged=lambda: told)
    before = facts.versions(HERE), facts.engine_key(HERE)
    told["TensorRT"] = "libnvinfer.so.10.15.0"

    assert before[0] == {"onnx": "1", "TensorRT": "libnvinfer.so.10.14.1"}
    assert facts.engine_key(HERE) != before[1]
