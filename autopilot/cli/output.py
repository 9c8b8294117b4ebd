"""Where commands write: progress to stderr, the result alone to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autopilot.observer import Observer


@contextmanager
def watching(quiet: bool) -> Iterator[Observer]:
    """An observer on stderr; whatever ends the study, the terminal is given back.

    Stdout is the result's alone: what a library or a user's hook prints meanwhile goes to stderr.
    """
    from autopilot.display import make_observer

    observer = make_observer(quiet, sys.stderr)
    with redirect_stdout(sys.stderr):
        try:
            yield observer
        finally:
            observer.finished()  # still in here: a live display gives back the stdout that it found


def print_table(renderable: RenderableType) -> None:
    """Print to stdout; in a pipe or a file without the blanks that fill a table's cells."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as captured:
        console.print(renderable)
    print_text("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_json(value: Any) -> None:
    print_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def print_text(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
