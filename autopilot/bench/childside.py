"""The child's side of ``run_child``: read the request, obey the limits, leave one answer. Standard library only.

A child module ends with::

    if __name__ == "__main__":
        child_main(handle)          # handle(request: dict) -> dict, JSON-able

and imports heavy libraries inside ``handle``, so that the limits are in force before they load.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autopilot.bench.memory_limit import limit_memory
from autopilot.errors import AutopilotError, Failure, VariantFailed

# Marks a line of the child's output as progress for the parent; libraries never print it.
PROGRESS_MARK = "\x1eprogress "

_PR_SET_PDEATHSIG = 1


def progress(text: str) -> None:
    """Send one line to the parent's ``on_line``."""
    print(PROGRESS_MARK + " ".join(text.split()), flush=True)


def read_envelope(path: Path) -> dict[str, Any]:
    """What the parent wrote: ``request``, ``answer`` (path), ``parent`` (pid), ``memory_bytes``."""
    envelope: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return envelope


def obey(envelope: Mapping[str, Any]) -> None:
    """Put the memory limit in force and tie this process's life to its parent's."""
    die_with_parent(int(envelope["parent"]))
    memory_bytes = envelope.get("memory_bytes")
    if memory_bytes is not None:
        limit_memory(int(memory_bytes))


def die_with_parent(parent_pid: int) -> None:
    """Make the kernel kill this process when the parent (the thread that started it) ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    else:
        threading.Thread(target=_watch_parent, args=(parent_pid,), daemon=True).start()
    if os.getppid() != parent_pid:  # it died before the line above took effect
        os._exit(1)


def _watch_parent(parent_pid: int) -> None:
    pause = threading.Event()
    while os.getppid() == parent_pid:
        pause.wait(1.0)
    os._exit(1)


def error_to_json(error: AutopilotError) -> dict[str, str]:
    """An error of ours as data."""
    failure = error.failure.value if isinstance(error, VariantFailed) else ""
    return {"class": type(error).__name__, "failure": failure, "message": error.message, "hint": error.hint}


def error_from_json(value: Mapping[str, str], log: str) -> AutopilotError:
    """The error again, as the parent raises it; variant failures carry ``log``."""
    if value["failure"]:
        if value["class"] == "Unsupported":
            from autopilot.errors import Unsupported

            unsupported = Unsupported(value["message"], value["hint"])
            unsupported.log = log
            return unsupported
        return VariantFailed(Failure(value["failure"]), value["message"], value["hint"], log)
    kind = getattr(importlib.import_module("autopilot.errors"), value["class"], AutopilotError)
    error: AutopilotError = kind(value["message"], value["hint"])
    return error


def write_answer(path: Path, answer: Mapping[str, Any]) -> None:
    """Write the answer whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(answer), encoding="utf-8")
    part.replace(path)


def child_main(handle: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Answer the request named on the command line with ``handle``'s result or its error, and exit.

    Errors of this package and MemoryError travel in the answer; anything else leaves its traceback
    on stderr and no answer, which the parent reports as a crash.
    """
    envelope = read_envelope(Path(sys.argv[1]))
    obey(envelope)
    answer: dict[str, Any]
    code = 0
    try:
        answer = {"result": handle(envelope["request"])}
    except AutopilotError as error:
        traceback.print_exc()
        answer = {"error": error_to_json(error)}
    except MemoryError:
        traceback.print_exc()
        answer = {"error": error_to_json(VariantFailed(Failure.OOM, "the child process ran out of memory."))}
    except Exception:  # the main of a child: what it is shows in its log, and the parent calls it a crash
        traceback.print_exc()
        answer, code = {}, 1
    if answer:
        write_answer(Path(envelope["answer"]), answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # skips destructors of native libraries: a crash at exit must not spoil a finished answer
