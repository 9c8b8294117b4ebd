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
    try:
        with redirect_stdout(sys.stderr):
            yield observer
    finally:
        observer.finished()


def print_table(renderable: RenderableType) -> None:
    from rich.console import Console

    Console(file=sys.stdout, highlight=False).print(renderable)


def print_json(value: Any) -> None:
    print_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def print_text(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
