"""Which MLflow store is used, and how mlflow is loaded: quietly, late and without phoning home."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from autopilot.errors import AutopilotError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOCAL_URI = "sqlite:///mlruns/mlflow.db"

# Read by mlflow when it is imported or used; what the user set stays.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Would print advice for coding assistants on import.
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    # Would copy the uv.lock and pyproject.toml of the current folder into every logged model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # The default of 7 waits four minutes for a server that is gone.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
_QUIET = ("mlflow", "alembic", "sqlalchemy.engine")
# Databases that this process made or opened in mlruns/: no other's are changed.
_OWN: set[str] = set()
_PORTS = {"http": 80, "https": 443}
_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Store:
    """An MLflow tracking store.

    ``shown`` is the URI as users know it, ``uri`` the same with an absolute path (so that a change
    of directory does no harm), ``database`` the sqlite file (None for other kinds of store),
    ``folder`` the local folder that holds database and artifacts, None where MLflow decides.
    """

    shown: str
    uri: str
    database: Path | None = None
    folder: Path | None = None

    @classmethod
    def current(cls) -> Store:
        """The one in ``MLFLOW_TRACKING_URI``, else ``mlruns/mlflow.db`` under the current directory."""
        shown = os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_URI
        path, question, options = shown.removeprefix("sqlite:///").partition("?")
        if not shown.startswith("sqlite:///") or path in ("", ":memory:"):
            return cls(shown, shown)
        database = Path(path).resolve()
        # Elsewhere than in mlruns/ the user follows MLflow's own conventions, so artifacts do too.
        folder = database.parent if database.parent.name == "mlruns" else None
        return cls(shown, f"sqlite:///{database.as_posix()}{question}{options}", database, folder)

    @property
    def artifacts(self) -> Path | None:
        """The local root of all artifacts, None where MLflow decides."""
        return self.folder / "artifacts" if self.folder else None

    def client(self, *, create: bool = True) -> MlflowClient:
        """A client on this store; the database is made on first use (about two seconds).

        Raises:
            AutopilotError: the store can't be reached, opened or made.
        """
        with translated(f"opening the tracking store {self.shown}"):
            self._reach()
            if create and self.database is not None:
                self.database.parent.mkdir(parents=True, exist_ok=True)
                if self.folder is not None:
                    _write_ahead(self.database)
            prepare_mlflow()
            from mlflow.tracking import MlflowClient

            client = MlflowClient(tracking_uri=self.uri)
            if create:
                self.settle()
            return client

    def settle(self) -> None:
        """Move what the log holds into the database's own file: copied alone, that is then whole."""
        if str(self.database) in _OWN and self.database is not None:
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(self.database, timeout=1.0)) as connection,
            ):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _reach(self) -> None:
        """Fail fast where nobody listens, or a file is no database: mlflow itself retries for minutes."""
        if self.database is not None and self.database.is_file():
            with (
                contextlib.suppress(sqlite3.OperationalError),  # locked: somebody is at work on it
                contextlib.closing(sqlite3.connect(self.database, timeout=_CONNECT_S)) as connection,
            ):
                connection.execute("PRAGMA schema_version")
        parts = urlsplit(self.uri)
        if parts.scheme in _PORTS and parts.hostname:
            address = (parts.hostname, parts.port or _PORTS[parts.scheme])
            socket.create_connection(address, timeout=_CONNECT_S).close()


def _write_ahead(database: Path) -> None:
    """Have SQLite append changes of ``database`` to a log, and no commit wait for the disk.

    A trial is six commits, of up to ten milliseconds each on a busy disk. A kill loses nothing; a power failure may
    cost the last trials in MLflow, never the file. The file remembers the log; where another process is at work on
    it, it stays as it is until the next time.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database, timeout=1.0)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    _OWN.add(str(database))
    if not event.contains(Engine, "connect", _relax):
        event.listen(Engine, "connect", _relax)  # mlflow makes its engine itself


def _relax(connection: object, record: object) -> None:
    """Of a new connection to one of our own databases: commits don't wait for the disk, where there is a log."""
    if not isinstance(connection, sqlite3.Connection):
        return
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    if file in _OWN and connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        connection.execute("PRAGMA synchronous=NORMAL")


def prepare_mlflow() -> None:
    """Import mlflow with telemetry off and its loggers at WARNING, unless the user set otherwise."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking  # noqa: F401 - the import is the point: it configures mlflow's loggers

    level = os.environ["MLFLOW_LOGGING_LEVEL"].upper()
    for logger in _QUIET:
        logging.getLogger(logger).setLevel(level)
    # Compares what a model needs with what is installed, which here is what it was measured with.
    logging.getLogger("mlflow.utils.requirements_utils").setLevel(logging.ERROR)


def load_in_background() -> Thread:
    """Begin to import mlflow, which takes a second; whoever times something waits for the thread first."""
    thread = Thread(target=prepare_mlflow, name="import mlflow", daemon=True)
    thread.start()
    return thread


@contextmanager
def global_store(uri: str) -> Iterator[None]:
    """MLflow's global store set to ``uri`` for a moment, for what can't be told of a store.

    mlflow looks the source of a new version and the model behind a ``models:/`` URI up in the global
    store, not in the client's (3.17: create_model_version in sqlalchemy_store.py, models_artifact_repo.py).
    """
    prepare_mlflow()
    import mlflow

    set_uri: Callable[[str | None], None] = mlflow.set_tracking_uri  # type: ignore[assignment]  # None unsets
    is_set: Callable[[], bool] = mlflow.is_tracking_uri_set
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    before = mlflow.get_tracking_uri() if is_set() else None
    if before == environment:
        before = None  # set by the variable alone, or as good as that
    set_uri(uri)
    try:
        yield
    finally:
        set_uri(before)
        # set_tracking_uri writes the variable too.
        if environment is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = environment


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn whatever MLflow and its database or server raise into one AutopilotError.

    Raises:
        AutopilotError: ``what`` failed, with the reason in one line.
    """
    errors = _errors()
    try:
        yield
    except errors as exc:
        reason = " ".join(str(exc).split())[:500] or type(exc).__name__
        hint = "Check MLFLOW_TRACKING_URI and the store it names; the results in the run folder are whole."
        raise AutopilotError(f"MLflow: {what} failed: {reason}.", hint) from exc


def _errors() -> tuple[type[Exception], ...]:
    prepare_mlflow()
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, RequestException, SQLAlchemyError, sqlite3.DatabaseError, OSError)
