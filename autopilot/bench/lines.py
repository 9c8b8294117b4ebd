"""Lines that a child process answers with, waited for in the kernel: polling would disturb what is timed."""

from __future__ import annotations

import os
import select
import time
from typing import IO

# Answers of a thousand timed requests are some 20 kB.
_CHUNK_BYTES = 1 << 20
# The most that poll takes, 24 days: who gives a step more means that nothing should end it.
_LONGEST_MS = 2**31 - 1


def milliseconds(seconds: float) -> float:
    """``seconds`` as ``select.poll`` takes them, at most what it takes.

    >>> milliseconds(0.5), milliseconds(float("inf"))
    (500.0, 2147483647)
    """
    return min(seconds * 1000, _LONGEST_MS)


class LineReader:
    """The lines of ``pipe``, one at a time."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None, "start the process with stdout=PIPE"
        self._descriptor = pipe.fileno()
        self._poller = select.poll()
        self._poller.register(self._descriptor, select.POLLIN)
        self._buffer = b""

    def read(self, timeout_s: float) -> bytes:
        """The next line, without its end.

        Raises:
            TimeoutError: none came in ``timeout_s`` seconds.
            EOFError: the pipe was closed before one ended.
        """
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._poller.poll(milliseconds(left_s)):
                raise TimeoutError
            chunk = os.read(self._descriptor, _CHUNK_BYTES)
            if not chunk:
                raise EOFError
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line
