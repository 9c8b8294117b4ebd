"""The shipped search spaces name only what the plug-ins declare, and hold what their names promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autopilot import plugins
from autopilot.domain import Choice, Domain, narrow
from autopilot.errors import SpecError
from autopilot.space_file import load_space_file
from autopilot.spaces_folder import space_folder, space_names

EXPECTED = {"quick", "cpu", "thorough", "train"}


def settings(raw: dict[str, Any]) -> Iterator[tuple[str, Domain, Any]]:
    """Every narrowed parameter of a space file: where it stands, what is declared, what is wanted."""
    for name, wanted in (raw.get("techniques") or {}).items():
        declared = plugins.techniques()[name].parameters
        for key, values in (wanted or {}).items():
            yield f"techniques.{name}.{key}", declared[key], values
    for name, wanted in (raw.get("deployment") or {}).items():
        if name in ("threads", "batch"):
            continue
        declared = plugins.providers()[name].parameters
        for key, values in (wanted or {}).items():
            yield f"deployment.{name}.{key}", declared[key], values


def test_space_names_are_the_documented_ones() -> None:
    """The spaces that the documentation names are shipped."""
    assert set(space_names()) >= EXPECTED


@pytest.mark.parametrize("name", space_names())
def test_space_is_inside_what_plugins_declare(name: str) -> None:
    """Every technique, parameter and value of a shipped space exists."""
    raw = load_space_file(space_folder() / f"{name}.yaml")

    for where, declared, wanted in settings(raw):
        narrowed = narrow(declared, wanted, where)

        assert declared.contains(narrowed.default), where


def test_narrowing_refuses_a_value_that_is_not_declared() -> None:
    """The test above can fail: a value outside the domain raises."""
    with pytest.raises(SpecError, match="somewhere"):
        narrow(Choice(("a", "b")), ["c"], "somewhere")


def test_thorough_covers_every_technique_on_by_default() -> None:
    """``thorough`` leaves out nothing that is on by default."""
    raw = load_space_file(space_folder() / "thorough.yaml")
    on = {name for name, technique in plugins.techniques().items() if technique.on_by_default}

    assert "techniques" not in raw or on <= set(raw["techniques"])


def test_quick_is_the_narrowest() -> None:
    """``quick`` names no technique that ``cpu`` doesn't."""
    quick = load_space_file(space_folder() / "quick.yaml")
    cpu = load_space_file(space_folder() / "cpu.yaml")

    assert set(quick["techniques"]) <= set(cpu["techniques"])


def test_space_folder_is_the_one_of_the_checkout(repository: Path) -> None:
    """In a checkout the files at the repository's top are used, not a copy."""
    assert space_folder() == repository / "search_spaces"
