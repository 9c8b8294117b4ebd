"""The spec file -> Problem: the user's whole question.

``problem`` holds the records, ``source`` reads YAML and knows the lines, ``shape`` says which keys
there are, ``parse`` turns them into a Problem, ``units`` reads durations. The records alone are
loaded here: a server process needs them and neither pydantic nor YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopilot.spec.problem import (
    DataSpec,
    InputSpec,
    MetricSpec,
    Problem,
    SearchSpec,
    TargetSpec,
    TorchSource,
    Traffic,
    Vocabulary,
)
from autopilot.spec.units import format_duration, parse_duration

__all__ = [
    "DataSpec",
    "InputSpec",
    "MetricSpec",
    "Problem",
    "SearchSpec",
    "TargetSpec",
    "TorchSource",
    "Traffic",
    "Vocabulary",
    "format_duration",
    "load_spec",
    "parse_duration",
    "parse_spec",
]


def load_spec(path: Path, vocabulary: Vocabulary) -> Problem:
    """The question that the spec file ``path`` asks, with every path in it made absolute.

    Raises:
        SpecError: the file is unreadable, not YAML or not a valid spec; names file and line.
        ModelError: ``model:`` is of a kind that this version does not take.
    """
    from autopilot.spec.parse import parse
    from autopilot.spec.source import read_source

    path = Path(path)
    return parse(read_source(path), path.absolute().parent, vocabulary, path=path.absolute())


def parse_spec(raw: Mapping[str, Any], folder: Path, vocabulary: Vocabulary, source: str = "spec") -> Problem:
    """As ``load_spec``, from a mapping; relative paths are taken from ``folder``.

    Raises:
        SpecError: as ``load_spec``, with ``source`` in place of file and line.
        ModelError: as ``load_spec``.
    """
    from autopilot.spec.parse import parse
    from autopilot.spec.source import mapping_source

    folder = Path(folder).absolute()
    return parse(mapping_source(raw, source), folder, vocabulary, path=folder / source)
