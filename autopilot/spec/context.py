"""What every part of parsing a spec needs: where we are, which words there are, which files exist."""

from __future__ import annotations

import re
from pathlib import Path

from autopilot.spec.problem import Vocabulary
from autopilot.spec.source import KeyPath, Source, dotted, nearest, short

_HOOK = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)")


class Context:
    """A spec's source, the folder its paths are relative to, and the words it may use."""

    def __init__(self, source: Source, folder: Path, vocabulary: Vocabulary) -> None:
        self.source = source
        self.folder = folder
        self.vocabulary = vocabulary
        self.error = source.error

    def axis(self, at: KeyPath, name: str) -> str:
        axis = self.vocabulary.axis(name)
        if axis is None:
            raise self.error(at, f"{at[0]}: unknown axis {name!r}", nearest(name, self.vocabulary.axis_names))
        return axis.name

    def file(self, at: KeyPath, raw: str) -> Path:
        """``raw`` as an existing file, relative to the spec's folder."""
        path = self.folder / Path(raw).expanduser()
        try:
            found = path.is_file()
        except (OSError, ValueError):
            found = False
        if found:
            return path.resolve()
        what = "is a folder, not a file" if "\0" not in raw and path.is_dir() else "does not exist"
        raise self.error(at, f"{dotted(at)}: {path} {what}", "Paths are relative to the spec file.")

    def hook(self, at: KeyPath, raw: str) -> str:
        """``"ABSOLUTE.py:function"``; the file exists, whether the function does is seen when it is loaded."""
        match = _HOOK.fullmatch(raw)
        if match is None:
            raise self.error(at, f"{dotted(at)}: {short(raw)} names no function", "Write it as FILE.py:FUNCTION.")
        return f"{self.file(at, match['file'])}:{match['function']}"
