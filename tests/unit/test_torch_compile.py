"""When the provider torch_compile can run, and what it is paired with."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilot.providers import torch_compile
from autopilot.target import Target
from autopilot.techniques._rules import no_dynamic_kernels, no_static_kernels

TARGET = Target.detect()


def test_usable_names_torch_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason comes with the command that mends it."""
    monkeypatch.setattr(torch_compile, "missing", lambda *names: "torch is not installed.")

    reason = torch_compile.PROVIDER.usable(TARGET)

    assert reason is not None
    assert "torch is not installed" in reason
    assert "pip install" in reason


def test_usable_names_the_compiler_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor can do nothing without one, and CXX decides which."""
    monkeypatch.setattr(torch_compile, "missing", lambda *names: None)
    monkeypatch.setenv("CXX", "no-such-compiler")

    reason = torch_compile.PROVIDER.usable(TARGET)

    assert reason is not None
    assert "no-such-compiler" in reason


def test_cache_is_in_the_shared_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Never in the home folder of a user who named another."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "kept"))

    assert torch_compile.cache_folder() == tmp_path / "kept" / "compiled" / "inductor"


def test_quantized_models_are_not_paired_with_it() -> None:
    """Their operators don't become PyTorch's: such a trial could only fail."""
    there = TARGET.running("torch_compile")

    assert no_static_kernels(there) is not None
    assert no_dynamic_kernels(there) is not None
