"""Run one piece of work in a process of its own, under limits, and classify how it ended.

``python -m MODULE REQUEST.json`` in a session of its own; the child's side is ``childside``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from autopilot.bench.childside import PROGRESS_MARK, error_from_json
from autopilot.bench.lines import milliseconds
from autopilot.cache.folder import DIR_VARIABLE, cache_folder
from autopilot.errors import Failure, WorkerDied
from autopilot.temporary import sweep

# Enough of stderr for a Python traceback or ONNX Runtime's message; more only fills logs.
TAIL_BYTES = 8192
# How long a killed process group may take to be reaped before it is left to init.
_REAP_S = 10.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_OOM_SIGNS = (
    "MemoryError",
    "std::bad_alloc",
    "Failed to allocate memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "failed to map segment from shared object",  # a library that fits no more: the parent has loaded it from there
    "CUDA out of memory",
)


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """``wall_s``: seconds from start to answer. ``memory_bytes``: heap + private mappings; None = no limit."""

    wall_s: float
    memory_bytes: int | None = None


def child_environment(threads: int | None = None) -> dict[str, str]:
    """The parent's environment, able to import this package, with thread pools bounded by ``threads``."""
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (root, environment.get("PYTHONPATH", "")) if p)
    environment["PYTHONFAULTHANDLER"] = "1"  # a segmentation fault leaves a Python traceback on stderr
    environment["PYTHONIOENCODING"] = "utf-8"
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # These may be relative, and a child works in a folder of its own.
    if environment.get(DIR_VARIABLE):
        environment[DIR_VARIABLE] = str(cache_folder(environment))
    if environment.get("TMPDIR"):
        environment["TMPDIR"] = tempfile.gettempdir()
    if threads is not None:
        environment.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    return environment


def write_request(folder: Path, request: Mapping[str, Any], limits: ChildLimits) -> Path:
    """Write the envelope that ``childside.read_envelope`` reads; the answer goes beside it."""
    path = folder / "request.json"
    envelope = {
        "request": request,
        "answer": str(folder / "answer.json"),
        "parent": os.getpid(),
        "memory_bytes": limits.memory_bytes,
    }
    path.write_text(json.dumps(envelope), encoding="utf-8")
    return path


def spawn(
    module: str,
    request_path: Path,
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.STDOUT,
    threads: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own: a Ctrl-C reaches the parent alone, which then kills the group."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(request_path)],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=request_path.parent,
        env=child_environment(threads),
        start_new_session=True,
        bufsize=0,
    )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and everything it started, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_REAP_S)


def is_out_of_memory(returncode: int | None, log: str) -> bool:
    """Whether an ending nobody asked for looks like memory: the kernel's SIGKILL, or an allocator's last words."""
    killed = returncode == -int(signal.SIGKILL)
    return killed or any(sign in log for sign in _OOM_SIGNS)


def died(what: str, returncode: int | None, log: str) -> WorkerDied:
    """The error for a child that ended by itself without an answer."""
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "no output")
    if is_out_of_memory(returncode, log):
        return WorkerDied(Failure.OOM, f"{what} ran out of memory ({last}).", "Raise the memory limit.", log)
    if returncode is not None and returncode < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-returncode).name
            return WorkerDied(Failure.CRASH, f"{what} was ended by {name} ({last}).", "", log)
    return WorkerDied(Failure.CRASH, f"{what} ended with code {returncode}: {last}", "", log)


class _Output:
    """What the child printed: a bounded tail, and progress lines handed on as they come."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._part = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._part = (self._part + chunk).split(b"\n")
        self._part = self._part[-TAIL_BYTES:]
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        mark = PROGRESS_MARK.encode()
        if line.startswith(mark):
            if self._on_line is not None:
                self._on_line(line[len(mark) :].decode(errors="replace"))
            return
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > TAIL_BYTES and len(self._lines) > 1:
            self._size -= len(self._lines.popleft()) + 1

    @property
    def tail(self) -> str:
        text = b"\n".join([*self._lines, self._part]) if self._part else b"\n".join(self._lines)
        return text[-TAIL_BYTES:].decode(errors="replace")


def _wait(process: subprocess.Popen[bytes], output: _Output, deadline: float) -> bool:
    """Pass the child's output on until it ends; False when the deadline comes first.

    Blocks in the kernel (a pidfd where there is one), so that the parent does not disturb what runs.
    """
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    pidfd = _open_pidfd(process.pid)
    poller = select.poll()
    for descriptor in [pipe] if pidfd is None else [pipe, pidfd]:
        poller.register(descriptor, select.POLLIN)
    is_open = True
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Without a pidfd the end of a child whose own children hold the pipe shows by polling only.
            poller.poll(milliseconds(left if pidfd is not None else min(left, 0.1)))
            ended = process.poll() is not None
            if is_open and not _drain(pipe, output):
                poller.unregister(pipe)
                is_open = False
            if ended:
                return True
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when ``pid`` ends; None where the system has no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _drain(pipe: int, output: _Output) -> bool:
    """Read what is there; False at the end of the stream."""
    while True:
        try:
            chunk = os.read(pipe, 65536)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        output.feed(chunk)


def run_child(
    module: str,
    request: Mapping[str, Any],
    limits: ChildLimits,
    *,
    workdir: Path,
    on_line: Callable[[str], None] | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """The answer of ``module`` to ``request``, worked out in a child process.

    Args:
        module: dotted name of a module that ends in ``child_main(handle)``.
        request: JSON-able; ``handle`` receives it.
        limits: wall-clock and memory.
        workdir: an existing folder for the request and the answer; both are removed again.
        on_line: receives each line that the child sent with ``childside.progress``.
        threads: bound for OpenMP-like thread pools of the child; None leaves the environment's.

    Raises:
        VariantFailed: the child answered with a known failure (Unsupported among them).
        AutopilotError: the child answered with another error of this package.
        WorkerDied: crash, timeout or out of memory; ``log`` has the last lines of its output.
    """
    folder = Path(tempfile.mkdtemp(prefix="child-", dir=workdir))
    output = _Output(on_line)
    try:
        process = spawn(module, write_request(folder, request, limits), threads=threads)
        try:
            in_time = _wait(process, output, time.monotonic() + limits.wall_s)
        finally:
            kill_group(process)
            assert process.stdout is not None
            process.stdout.close()
            if process.returncode != 0:  # it had no time to remove what it made; a copy of the model, in a build
                sweep()
        return _answer(folder / "answer.json", module, process.returncode if in_time else None, output.tail, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(path: Path, module: str, returncode: int | None, log: str, limits: ChildLimits) -> dict[str, Any]:
    """The result in the answer file; raises what the child or its ending says. ``returncode`` None = time ran out."""
    what = f"the child process {module}"
    if returncode is None:
        hint = "Give it more time, or leave this out of the search space."
        raise WorkerDied(Failure.TIMEOUT, f"{what} was stopped after {limits.wall_s:g} s without an answer.", hint, log)
    if not path.is_file():
        raise died(what, returncode, log)
    answer = json.loads(path.read_text(encoding="utf-8"))
    if "error" in answer:
        raise error_from_json(answer["error"], log)
    result: dict[str, Any] = answer["result"]
    return result
