"""A child module that ends in whatever way the request asks for."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from autopilot.bench.childside import child_main, progress
from autopilot.errors import DataError, Unsupported
from autopilot.temporary import temporary_folder

# Longer than any test waits: what has gone by then was ended and didn't end by itself.
FOREVER_S = 900


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """Fail (or answer) as ``request["how"]`` says."""
    how = request["how"]
    print("stray print")
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang_with_folder":
        with temporary_folder("build") as folder:
            Path(request["pid_file"]).write_text(str(folder))
            time.sleep(FOREVER_S)
    if how == "hang":
        Path(request["pid_file"]).write_text(str(os.getpid()))
        time.sleep(FOREVER_S)
    if how == "hang_with_grandchild":
        sleeper = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER_S})"])
        Path(request["pid_file"]).write_text(str(sleeper.pid))
        time.sleep(FOREVER_S)
    if how == "allocate":
        return {"length": len(bytearray(request["bytes"]))}
    if how == "unsupported":
        raise Unsupported("no such node", "take another model")
    if how == "data":
        raise DataError("labels are missing", "name them")
    if how == "bug":
        raise ValueError("a bug of ours")
    progress("half way")
    return {"echo": request, "threads": os.environ.get("OMP_NUM_THREADS"), "open": len(os.listdir("/proc/self/fd"))}


if __name__ == "__main__":
    child_main(handle)
