"""The parent's side of the load generator's process."""

from __future__ import annotations

import json
import os
import subprocess
import weakref
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from autopilot.bench.child import ChildLimits, kill_group, spawn, write_request
from autopilot.bench.generator import SPIN_NS
from autopilot.bench.lines import LineReader
from autopilot.errors import Failure, WorkerDied
from autopilot.temporary import TemporaryFolder, temporary_folder

# Beyond a window's end the generator only has to write down what it did.
_ANSWER_S = 30.0


class Generator:
    """A live load generator; a context manager. It keeps off ``busy_cores`` where others are left to it."""

    def __init__(self, busy_cores: Collection[int]) -> None:
        free = sorted(_usable() - set(busy_cores))
        self.spin_ns = SPIN_NS if free else 0
        self._folder = temporary_folder("generator")
        path = write_request(self._folder.path, {"cores": free}, ChildLimits(_ANSWER_S))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = spawn("autopilot.bench.generator", path, **pipes)
        self._lines = LineReader(self._process.stdout)
        self._finalizer = weakref.finalize(self, _end, self._process, self._folder)

    def start(self, queue: Path, due_ns: list[int], number: int, *, end_ns: int, drain_ns: int) -> None:
        """Have a window sent into ``queue``; see ``generator.send``. Returns at once."""
        told = {"queue": str(queue), "due_ns": due_ns, "number": number, "end_ns": end_ns, "drain_ns": drain_ns}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**told, "spin_ns": self.spin_ns}).encode() + b"\n")
        self._process.stdin.flush()

    def sent_ns(self) -> list[int]:
        """When each request of the window that was started last was sent; -1 for those that a full queue refused.

        Raises:
            WorkerDied: the generator ended, or nobody read its queue.
        """
        reply: dict[str, Any] = json.loads(self._line())
        if "gone" in reply:
            raise WorkerDied(Failure.CRASH, "nobody read the requests that the load generator sent.")
        sent: list[int] = reply["sent_ns"]
        return sent

    def _line(self) -> bytes:
        try:
            return self._lines.read(_ANSWER_S)
        except (TimeoutError, EOFError):
            raise WorkerDied(Failure.CRASH, "the load generator ended or gave no answer.") from None

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._finalizer()


def _usable() -> set[int]:
    """The cores this process may use; none where the system can't bind a process to some."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _end(process: subprocess.Popen[bytes], folder: TemporaryFolder) -> None:
    kill_group(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    folder.close()
