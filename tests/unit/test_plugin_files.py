"""Plug-ins in single files: found here and in child processes, refused loudly."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import autopilot
from autopilot import plugins
from autopilot.bench.child import child_environment
from autopilot.cache.code import code_digest
from autopilot.errors import AutopilotError, BadInput
from autopilot.plugin_files import VARIABLE, named_files

METRIC = """
from autopilot.contracts import Metric
METRICS = (Metric("{name}", True, lambda outputs, labels, options: 1.0, "{text}"),)
"""


@pytest.fixture(autouse=True)
def only_the_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plug-in files before, none of these afterwards."""
    monkeypatch.setenv(VARIABLE, "")
    before = set(sys.modules)
    yield
    monkeypatch.undo()
    for name in set(sys.modules) - before:
        if name.startswith("autopilot_plugin_"):
            del sys.modules[name]
    for listing in (plugins.techniques, plugins.providers, plugins.meters, plugins.metrics):
        listing.cache_clear()


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_file_is_a_plug_in_here_and_in_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path does: child processes get the absolute one."""
    file = written(tmp_path, METRIC.format(name="mine", text="first"))
    monkeypatch.chdir(tmp_path)

    autopilot.add_plugins("mine.py")

    assert plugins.metrics()["mine"].summary == "first"
    assert child_environment()[VARIABLE] == str(file)


def test_edited_file_is_read_anew(tmp_path: Path) -> None:
    """A notebook's cell is run again after a change; the file is named once, and its code has another digest."""
    file = written(tmp_path, METRIC.format(name="mine", text="first"))
    autopilot.add_plugins(file)
    digest = code_digest("autopilot_plugin_mine")
    written(tmp_path, METRIC.format(name="mine", text="other"))

    autopilot.add_plugins(file)

    assert plugins.metrics()["mine"].summary == "other"
    assert code_digest("autopilot_plugin_mine") != digest
    assert named_files() == (file,)


@pytest.mark.parametrize(
    ("text", "said"),
    [("x = 1\n", "declares no plug-in"), ("1 / 0\n", "ZeroDivisionError"), ("def\n", "SyntaxError")],
)
def test_file_that_is_no_plug_in_is_refused_and_forgotten(tmp_path: Path, text: str, said: str) -> None:
    """What is wrong is said where it is added, and later runs aren't hit by it."""
    with pytest.raises(BadInput, match=said):
        autopilot.add_plugins(written(tmp_path, text))

    assert named_files() == ()


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A typing error in a path is an error of its own."""
    with pytest.raises(BadInput, match=r"gone\.py is no Python file"):
        autopilot.add_plugins(tmp_path / "gone.py")


def test_name_that_is_taken_is_refused_and_forgotten(tmp_path: Path) -> None:
    """A plug-in file can't replace one of the package's, and the next listing works."""
    with pytest.raises(AutopilotError, match="'accuracy'"):
        autopilot.add_plugins(written(tmp_path, METRIC.format(name="accuracy", text="mine")))

    assert named_files() == ()
    assert "accuracy" in plugins.metrics()


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Modules go by the file's name: which one is meant must not depend on the order."""
    (tmp_path / "other").mkdir()
    autopilot.add_plugins(written(tmp_path, METRIC.format(name="mine", text="first")))

    with pytest.raises(BadInput, match="two plug-in files"):
        autopilot.add_plugins(written(tmp_path / "other", METRIC.format(name="other", text="second")))


def test_relative_path_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process of a study runs in a folder of its own."""
    monkeypatch.setitem(os.environ, VARIABLE, "mine.py")

    with pytest.raises(BadInput, match="not an absolute path"):
        named_files()
