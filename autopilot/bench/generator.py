"""The load generator: a process that only writes small records at scheduled times. Standard library only.

Between two requests it sleeps in the kernel, whatever the server does (open loop). Commands come as JSON
lines on stdin, answers leave on stdout; when each request was sent is told after the window.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopilot.bench.batching import LAST, RECORD
from autopilot.bench.childside import obey, read_envelope

# Timers of the kernel wake a sleeper up to 50 us late by default, to save power.
_PR_SET_TIMERSLACK = 29
# Waking up takes some tens of microseconds: on a core of its own the generator spins for the last of them.
SPIN_NS = 50_000
# How often the record that ends a window is offered to a full queue.
_RETRY_S = 0.001


def send(queue: int, due_ns: array[int], number: int, *, end_ns: int, drain_ns: int, spin_ns: int) -> array[int]:
    """Write a record into ``queue`` at each of ``due_ns`` (CLOCK_MONOTONIC); when each was sent, -1 for a full queue.

    A request that is late is sent at once; the ones after it keep their times. The record that ends
    the window follows at ``end_ns``, or when there is room for it, until ``drain_ns``.
    """
    sent_ns = array("q", bytes(8 * len(due_ns)))
    record = bytearray(RECORD.size)
    clock, sleep, write, pack_into = time.monotonic_ns, time.sleep, os.write, RECORD.pack_into
    for i, due in enumerate(due_ns):
        left = due - clock()
        if left > spin_ns:
            sleep((left - spin_ns) / 1e9)
        while True:
            now = clock()
            if now >= due:
                break
        pack_into(record, 0, number, i, now)
        try:
            write(queue, record)
            sent_ns[i] = now
        except BlockingIOError:
            sent_ns[i] = -1
    time.sleep(max(0.0, (end_ns - clock()) / 1e9))
    RECORD.pack_into(record, 0, number, LAST, clock())
    while clock() < drain_ns:
        try:
            write(queue, record)
            break
        except BlockingIOError:
            sleep(_RETRY_S)
    return sent_ns


def window(told: Mapping[str, Any]) -> dict[str, Any]:
    """Send one window as ``told``; a queue that nobody reads any more ends it with ``gone``."""
    due_ns = array("q", told["due_ns"])
    try:
        queue = os.open(told["queue"], os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return {"gone": True}
    gc.disable()
    try:
        end_ns, drain_ns = int(told["end_ns"]), int(told["drain_ns"])
        sent = send(queue, due_ns, int(told["number"]), end_ns=end_ns, drain_ns=drain_ns, spin_ns=int(told["spin_ns"]))
    except BrokenPipeError:
        return {"gone": True}
    finally:
        gc.enable()
        os.close(queue)
    return {"sent_ns": sent.tolist()}


def main() -> None:
    """Send windows until stdin ends."""
    envelope = read_envelope(Path(sys.argv[1]))
    obey(envelope)
    cores = envelope["request"]["cores"]
    if cores:
        os.sched_setaffinity(0, cores)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.freeze()
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(window(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
