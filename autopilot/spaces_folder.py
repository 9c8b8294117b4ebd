"""Where the search-space files are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def space_folder() -> Path:
    """The folder of the shipped search-space files (``quick.yaml``, ``cpu.yaml``, …).

    A wheel carries a copy of the repository's ``search_spaces/`` as ``autopilot/_search_spaces``;
    an editable install and a plain checkout read ``search_spaces/`` itself.
    """
    inside = _PACKAGE / "_search_spaces"
    return inside if inside.is_dir() else _PACKAGE.parent / "search_spaces"


def space_names() -> tuple[str, ...]:
    """The names a spec's ``space:`` may give, sorted."""
    return tuple(sorted(path.stem for path in space_folder().glob("*.yaml")))
