"""The command line: thin. Heavy libraries load inside the command that needs them."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from autopilot.cli.commands import app
from autopilot.errors import AutopilotError

INTERRUPTED = 130
# The class above typer's own usage errors; typer carries its own copy of click, so it has no public name.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every error becomes one paragraph on stderr."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a sign must not cost the result.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with _sigterm_interrupts():
        try:
            answer = app(given, prog_name="autopilot", standalone_mode=False)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has seen enough (| head). Nothing more may be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (Exception, KeyboardInterrupt) as exc:  # the one place where every error ends
            return _report(exc, debug)
    code = answer if isinstance(answer, int) else 0
    if code == INTERRUPTED:
        return _interrupted()
    return code


def _report(exc: BaseException, debug: bool) -> int:
    """Say what happened and return the exit code."""
    if debug:
        traceback.print_exception(exc)
    if isinstance(exc, (KeyboardInterrupt, typer.Abort)):
        return _interrupted()
    if isinstance(exc, AutopilotError):
        _complain(str(exc))
        return exc.exit_code
    if isinstance(exc, _UsageError):
        context = getattr(exc, "ctx", None)
        command = context.command_path if context is not None else "autopilot"
        said = exc.format_message()
        _complain(f"{said if said.endswith(('.', '?')) else said + '.'} {command} --help lists what there is.")
        return 2
    if isinstance(exc, OSError):
        where = f" ({exc.filename})" if exc.filename else ""
        _complain(f"{exc.strerror or exc}{where}." + ("" if debug else " --debug shows where it happened."))
        return 1
    _complain(f"this is a bug: {type(exc).__name__}: {exc}." + ("" if debug else " --debug shows the traceback."))
    return 1


def _interrupted() -> int:
    print("interrupted: run the same command to go on", file=sys.stderr)
    return INTERRUPTED


def _complain(text: str) -> None:
    """One paragraph on stderr."""
    print("error: " + " ".join(text.split()), file=sys.stderr)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """While inside, SIGTERM ends the program as Ctrl-C does: children reaped, the run resumable."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread, where signals can't be caught
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
