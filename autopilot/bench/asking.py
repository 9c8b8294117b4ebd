"""One serving process as its parent holds it: a command goes in, its reply comes out, and it is always reaped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopilot.bench.child import TAIL_BYTES, died, kill_group
from autopilot.bench.childside import error_from_json
from autopilot.bench.lines import LineReader
from autopilot.errors import Failure, WorkerDied
from autopilot.temporary import TemporaryFolder

LOG = "log"


class Asked:
    """A process that answers JSON lines; ended, and its folder removed, once it fails to.

    ``folder``: its request and, in ``LOG``, what it printed. ``wall_s``: seconds that a reply may take.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: TemporaryFolder, wall_s: float) -> None:
        self.folder: Path = folder.path
        self._process = process
        self.wall_s = wall_s
        self._lines = LineReader(process.stdout)
        self._finalizer = weakref.finalize(self, _reap, process, folder)

    @property
    def pid(self) -> int:
        """The process's number in this namespace."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process is there to be asked."""
        return self._finalizer.alive and self._process.poll() is None

    def ask(self, command: Mapping[str, Any], wall_s: float | None = None) -> dict[str, Any]:
        """The reply to ``command``, waited for ``wall_s`` seconds instead of the process's own where it is given.

        Raises:
            VariantFailed: the process replied with one (WorkerDied when it ended or gave no reply in time).
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the reply then says how the process ended
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        return self.read(wall_s)

    def read(self, wall_s: float | None = None) -> dict[str, Any]:
        """The next reply, whatever it was that asked for it.

        Raises:
            VariantFailed: as ``ask``.
        """
        try:
            reply: dict[str, Any] = json.loads(self._line(self.wall_s if wall_s is None else wall_s))
        except BaseException:  # an interrupt too must leave no process behind
            self.close()
            raise
        if "error" in reply:
            log = self._log()
            self.close()
            raise error_from_json(reply["error"], log)
        return reply

    def close(self) -> None:
        """End the process and remove its files; safe to call again."""
        self._finalizer()

    def _line(self, wall_s: float) -> bytes:
        try:
            return self._lines.read(wall_s)
        except TimeoutError:
            text = f"the serving process gave no answer in {wall_s:g} s."
            raise WorkerDied(Failure.TIMEOUT, text, log=self._log()) from None
        except EOFError:
            self._process.wait()
            raise died("the serving process", self._process.returncode, self._log()) from None

    def _log(self) -> str:
        with contextlib.suppress(OSError), (self.folder / LOG).open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - TAIL_BYTES))
            return log.read().decode(errors="replace")
        return ""


def _reap(process: subprocess.Popen[bytes], folder: TemporaryFolder) -> None:
    kill_group(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    folder.close()
