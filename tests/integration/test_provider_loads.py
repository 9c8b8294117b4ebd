"""Whether an installed library can be imported: what is only found doesn't count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autopilot.providers import _loads
from autopilot.providers import openvino as provider
from autopilot.providers._loads import why_not_loaded
from autopilot.target import Target

TARGET = Target.detect()
NAME = "no_such_runtime"
pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Answers are kept for a process; these tests are several."""
    why_not_loaded.cache_clear()
    yield
    why_not_loaded.cache_clear()


def package(folder: Path, text: str, name: str = NAME) -> Path:
    """A package that does ``text`` when it is imported."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


def test_library_that_loads_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said."""
    monkeypatch.syspath_prepend(package(tmp_path, ""))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert why_not_loaded(NAME) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ImportError('libx.so.2640: cannot open shared object file')", "libx.so.2640: cannot open"),
        ("import no_such_part", "No module named 'no_such_part'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "ended by signal 6"),
    ],
)
def test_library_that_does_not_load_says_why(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own words, whatever ends the import."""
    monkeypatch.syspath_prepend(package(tmp_path, text))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    reason = why_not_loaded(NAME) or ""

    assert "is installed but can't be loaded" in reason
    assert said in reason


def test_folder_of_that_name_where_the_user_stands_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m autopilot` looks into the current folder; the processes of trials don't."""
    package(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")

    assert why_not_loaded(NAME) == f"the package {NAME} is not installed"


def test_no_process_is_started_for_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users without such providers wait for nothing; and the answer is found once."""
    monkeypatch.setattr(_loads.subprocess, "run", lambda *args, **more: pytest.fail("a process was started"))

    assert why_not_loaded(NAME) == f"the package {NAME} is not installed"


def test_answer_is_found_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question after the first costs nothing."""
    monkeypatch.syspath_prepend(package(tmp_path, ""))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    why_not_loaded(NAME)
    monkeypatch.setattr(_loads.subprocess, "run", lambda *args, **more: pytest.fail("a second process was started"))

    assert why_not_loaded(NAME) is None


@pytest.mark.parametrize(
    ("lacking", "command"),
    [
        ("the package openvino is not installed", "pip install 'openvino>="),
        (
            "the package openvino is installed but can't be loaded: libx.so",
            "pip uninstall -y openvino && pip install",
        ),
    ],
)
def test_openvino_says_what_mends_it(lacking: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed already isn't installed again by a plain command."""
    monkeypatch.setattr(provider, "why_not_loaded", lambda name: lacking)

    reason = provider.PROVIDER.usable(TARGET) or ""

    assert reason.startswith(lacking)
    assert command in reason
