"""Where a study's ledger is kept: a database behind an SQLAlchemy URL. A password in it is never shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.errors import AutopilotError, BadInput
from autopilot.recipe import canonical
from autopilot.spec import Problem

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

# How long a writer waits for another one, in seconds: a transaction takes milliseconds, a slow disk more.
_BUSY_S = 60.0
# How long a server may take to answer the first knock.
_CONNECT_S = 10
_LEDGER = "ledger.db"
_FORMS = "Write sqlite:///FILE or postgresql://USER@HOST/DATABASE."
_SECRET = re.compile(r"(?i)(pass\w*|pwd|secret)=[^&\s]*")


def local_url(work: Path) -> str:
    """The URL of the ledger that a run keeps in its own folder ``work``."""
    return f"sqlite:///{(work / _LEDGER).as_posix()}"


def ledger_files() -> tuple[str, ...]:
    """Names of the files that may make up the ledger in a run's own folder; they belong together."""
    return tuple(_LEDGER + end for end in ("", "-wal", "-shm", "-journal"))


def masked(url: str) -> str:
    """``url`` without its password.

    >>> masked("postgresql://me:secret@host/db")
    'postgresql://me:***@host/db'
    """
    shown = re.sub(r"://([^/@:]*):.*@", r"://\1:***@", url)
    return _SECRET.sub(r"\1=***", shown)


def open_storage(url: str, *, own: bool = False) -> Engine:
    """An engine on the database at ``url``, which was reached once; ``own``: an SQLite file for this process alone.

    Raises:
        BadInput: the URL is none, its driver isn't installed, or nobody answers there.
    """
    parsed = _parsed(url)
    import sqlalchemy
    from sqlalchemy import exc

    lite = parsed.get_backend_name() == "sqlite"
    arguments = {"timeout": _BUSY_S} if lite else {"connect_timeout": _CONNECT_S}
    try:
        # A server may have closed a connection that rested during a long trial.
        engine = sqlalchemy.create_engine(parsed, connect_args=arguments, pool_pre_ping=not lite)
    except (ImportError, exc.NoSuchModuleError) as problem:
        raise BadInput(
            f"the storage {masked(url)} needs a driver that isn't installed: {problem}.",
            "Install the extra, from a clone: pip install -e '.[postgres]', or name another driver: postgresql+DRIVER://….",
        ) from None
    if own and lite:
        sqlalchemy.event.listen(engine, "connect", _write_ahead)
    try:
        with engine.connect():
            pass
    except exc.SQLAlchemyError as problem:
        raise BadInput(
            f"the storage {masked(url)} can't be reached: {reason(problem, url)}.",
            "Check that the folder exists." if lite else "Check address, user, password and that the server runs.",
        ) from None  # the chain might show the password
    return engine


def _write_ahead(connection: Any, record: object) -> None:
    """Have SQLite append changes to a log: a commit then waits for no disk, and a kill still loses nothing.

    Only for one process, or all on one machine: the log can't be shared over a network. A power failure may
    cost the last changes, never the file.
    """
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _parsed(url: str) -> URL:
    """The URL, with psycopg 3 where the driver is left open: SQLAlchemy's own default is an older one."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise BadInput(f"the storage {masked(url)} is no database URL.", _FORMS) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise BadInput(f"the storage {masked(url)} is of a kind ({backend}) that isn't known here.", _FORMS)
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadInput(f"the storage {masked(url)} is in memory, where nothing is kept.", _FORMS)
    return parsed


def reason(problem: Exception, url: str) -> str:
    """Why the database refused, in one line that doesn't hold the password of ``url``."""
    said = " ".join(str(getattr(problem, "orig", None) or problem).split())[:300].rstrip(".")
    return _SECRET.sub(r"\1=***", _without(said, url))


def _without(text: str, url: str) -> str:
    from sqlalchemy import make_url

    password = make_url(url).password
    return text.replace(str(password), "***") if password else text


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what the database raises into one AutopilotError.

    Raises:
        AutopilotError: the database at ``url`` failed.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as problem:
        raise AutopilotError(
            f"the storage {masked(url)} failed: {reason(problem, url)}.",
            "Finished trials are safe in it; the same command goes on when it answers again.",
        ) from None


def logged_spec(problem: Problem) -> str:
    """The spec file's text as it may be logged: with its storage's password masked."""
    text = problem.path.read_text(encoding="utf-8")
    search = problem.raw.get("search") or {}
    url = search.get("storage")
    if not isinstance(url, str) or masked(url) == url:
        return text
    if url in text:
        return text.replace(url, masked(url))
    # Written with escapes or over several lines: the same content as JSON, which is YAML too.
    return canonical({**problem.raw, "search": {**search, "storage": masked(url)}})
