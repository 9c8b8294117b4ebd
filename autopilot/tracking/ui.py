"""The MLflow UI over this project's store, for this machine only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from autopilot.errors import BadInput
from autopilot.tracking.store import ENVIRONMENT, Store

HOST = "127.0.0.1"
_STARTUP_S = 60.0
_STOP_S = 10.0


def start_ui(
    port: int = 5000, open_browser: bool = False, *, announce: Callable[[str], object] = lambda text: None
) -> int:
    """Run ``mlflow ui`` on 127.0.0.1 until it is stopped; the exit code of its process.

    ``announce`` is told, in a sentence, what is about to be served and where.

    Raises:
        BadInput: the port is in use, or the tracking store is a server, which has a UI of its own.
    """
    store = Store.current()
    if store.uri.startswith(("http://", "https://")):
        raise BadInput(f"the tracking store is the server {store.shown}.", "Open that address in a browser.")
    _check_free(port)
    empty = store.database is not None and not store.database.exists()
    announce(f"MLflow UI over {store.shown}{' (no runs yet)' if empty else ''}: http://{HOST}:{port} in a few seconds")
    if store.database is not None:
        store.database.parent.mkdir(parents=True, exist_ok=True)
    environment = {**ENVIRONMENT, **os.environ}
    # Background jobs (evaluations by language models) would hold several more processes in memory.
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # A process group of its own: the server starts workers, and stopping has to reach them all.
    process = subprocess.Popen(command(store, port), env=environment, start_new_session=True)
    if open_browser:
        threading.Thread(target=_open_when_up, args=(port, process), daemon=True).start()
    with _ends_on_sigterm():
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(process)


def command(store: Store, port: int) -> list[str]:
    """The command line of the UI's server."""
    line = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", store.uri]
    if store.artifacts is not None:
        location = store.artifacts.as_uri()
        line += ["--default-artifact-root", location, "--artifacts-destination", location]
    return line


def _check_free(port: int) -> None:
    if not 0 < port < 65536:
        raise BadInput(f"port {port} is outside 1..65535.", "Choose another with --port.")
    with socket.socket() as probe:
        # As the server does it: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise BadInput(f"port {port} of {HOST} can't be used: {exc.strerror}.", "Choose another: --port.") from exc


def _open_when_up(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _STARTUP_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
            continue
        webbrowser.open(f"http://{HOST}:{port}")
        return


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
