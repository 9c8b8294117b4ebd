"""A server run in the foreground on 127.0.0.1, with all its processes, until it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from autopilot.errors import BadInput

HOST = "127.0.0.1"
_STOP_S = 10.0


def run_until_stopped(
    line: Sequence[str],
    environment: Mapping[str, str],
    started: Callable[[subprocess.Popen[bytes]], object] = lambda process: None,
) -> int:
    """Run a server until Ctrl-C or SIGTERM; the exit code of its process, 0 where we stopped it.

    ``started`` is called once the process is there, not when it answers.
    """
    # A process group of its own: a server starts workers, and stopping has to reach them all.
    process = subprocess.Popen(list(line), env=dict(environment), start_new_session=True)
    with _ends_on_sigterm():
        try:
            started(process)
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(process)


def check_free(port: int) -> None:
    """Refuse a port that nobody could listen on.

    Raises:
        BadInput: it is in use, or none.
    """
    if not 0 < port < 65536:
        raise BadInput(f"port {port} is outside 1..65535.", "Choose another with --port.")
    with socket.socket() as probe:
        # As the server does it: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise BadInput(f"port {port} of {HOST} can't be used: {exc.strerror}.", "Choose another: --port.") from exc


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """Treat a polite kill like Ctrl-C, so that the server doesn't outlive us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: ask, wait, insist."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    process.wait()
