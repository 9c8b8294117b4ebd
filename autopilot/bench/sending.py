"""The parent's side of the load generator's process."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from autopilot.bench.child import ChildLimits, kill_group, spawn, write_request
from autopilot.bench.generator import SPIN_NS
from autopilot.errors import Failure, WorkerDied

# Beyond a window's end the generator only has to write down what it did.
_ANSWER_S = 30.0


class Generator:
    """A live load generator; a context manager. It keeps off ``busy_cores`` where others are left to it."""

    def __init__(self, busy_cores: Collection[int]) -> None:
        free = sorted(_usable() - set(busy_cores))
        self.spin_ns = SPIN_NS if free else 0
        self._folder = Path(tempfile.mkdtemp(prefix="autopilot-generator-"))
        path = write_request(self._folder, {"cores": free}, ChildLimits(_ANSWER_S))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = spawn("autopilot.bench.generator", path, **pipes)
        self._buffer = b""
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
        assert self._process.stdout is not None
        deadline = time.monotonic() + _ANSWER_S
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._buffer:
            left_s = deadline - time.monotonic()
            chunk = os.read(self._process.stdout.fileno(), 1 << 20) if poller.poll(max(0.0, left_s) * 1000) else b""
            if not chunk:
                raise WorkerDied(Failure.CRASH, "the load generator ended or gave no answer.")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._finalizer()


def _usable() -> set[int]:
    """The cores this process may use; none where the system can't bind a process to some."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    kill_group(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    shutil.rmtree(folder, ignore_errors=True)
