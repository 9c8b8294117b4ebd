"""The MLflow UI over this project's store, for this machine only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable

from autopilot.errors import AutopilotError, BadInput
from autopilot.tracking.foreground import HOST, check_free, run_until_stopped
from autopilot.tracking.store import ENVIRONMENT, Store, translated
from autopilot.tracking.views import VIEW_TAG, runs_link

_STARTUP_S = 60.0


def start_ui(
    port: int = 5000, open_browser: bool = False, *, announce: Callable[[str], object] = lambda text: None
) -> int:
    """Run ``mlflow ui`` on 127.0.0.1 until it is stopped; the exit code of its process.

    ``announce`` is told, in a sentence, what is about to be served and where: the runs of the study that was
    written to last, with the columns that matter for its budget.

    Raises:
        BadInput: the port is in use, or the tracking store is a server, which has a UI of its own.
    """
    store = Store.current()
    if store.uri.startswith(("http://", "https://")):
        raise BadInput(f"the tracking store is the server {store.shown}.", "Open that address in a browser.")
    check_free(port)
    empty = store.database is not None and not store.database.exists()
    if store.database is not None:
        store.database.parent.mkdir(parents=True, exist_ok=True)
    environment = {**ENVIRONMENT, **os.environ}
    # Background jobs (evaluations by language models) would hold several more processes in memory.
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # What mlflow imports is deprecated by what it imports it from: nothing that a user could mend.
    environment.setdefault("PYTHONWARNINGS", "ignore")

    def started(process: subprocess.Popen[bytes]) -> None:
        page = f"http://{HOST}:{port}" if empty else latest_runs(store, f"http://{HOST}:{port}")
        announce(f"MLflow UI over {store.shown}{' (no runs yet)' if empty else ''}: {page} in a few seconds")
        if open_browser:
            threading.Thread(target=_open_when_up, args=(port, process, page), daemon=True).start()

    return run_until_stopped(command(store, port), environment, started)


def latest_runs(store: Store, address: str) -> str:
    """Where the UI at ``address`` shows the runs of the newest study; ``address`` itself where there is none."""
    try:
        client = store.client(create=False)
        with translated("looking for the newest study"):
            found = [e for e in client.search_experiments() if VIEW_TAG in e.tags]
            newest = client.search_runs([e.experiment_id for e in found], "", max_results=1) if found else []
    except AutopilotError:  # the server's own message will say more
        return address
    return runs_link(address, newest[0].info.experiment_id) if newest else address


def command(store: Store, port: int) -> list[str]:
    """The command line of the UI's server."""
    line = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    # Both stores, or it says that one was not given; a line a request would push our link off the screen.
    line += [
        "--backend-store-uri",
        store.uri,
        "--registry-store-uri",
        store.uri,
        "--uvicorn-opts",
        "--log-level warning",
    ]
    if store.artifacts is not None:
        location = store.artifacts.as_uri()
        line += ["--default-artifact-root", location, "--artifacts-destination", location]
    return line


def _open_when_up(port: int, process: subprocess.Popen[bytes], page: str) -> None:
    deadline = time.monotonic() + _STARTUP_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
            continue
        webbrowser.open(page)
        return
