"""The ledger's tables, and changes of one study that happen one after the other whatever the database.

Every change is a transaction that begins by writing the study's own row: PostgreSQL holds that row's lock until
the transaction's end, SQLite the file's. So what a change reads first still holds when it writes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from autopilot.search.storage import open_storage, translated

# A server that is started anew is back after some seconds; pauses before a change is tried again.
_PAUSES_S = (0.5, 2.0, 5.0, 10.0)

_TABLES = MetaData()
STUDIES = Table(
    "autopilot_studies",
    _TABLES,
    Column("study", String(200), primary_key=True),
    Column("turn", Integer, nullable=False),  # written by every change, for its lock
    Column("born", String(32), nullable=False),  # another one whenever the study is started anew
)
CLAIMS = Table(
    "autopilot_claims",
    _TABLES,
    Column("study", String(200), primary_key=True),
    Column("variant", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("until", Float(53), nullable=False),  # seconds since the epoch, by the database's clock
    Column("body", Text, nullable=False),  # the variant, as JSON
)
RECORDS = Table(
    "autopilot_records",
    _TABLES,
    Column("study", String(200), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("variant", String(64), nullable=False),
    Column("body", Text, nullable=False),  # the record, as JSON
    UniqueConstraint("study", "variant"),
)

Done = TypeVar("Done")


class Database:
    """The study ``study`` in the database at ``url``; tables and the study's row are made where they aren't there.

    ``own``: the database is this process's alone.

    Raises:
        BadInput: the database can't be opened.
        AutopilotError: it fails.
    """

    def __init__(self, url: str, study: str, *, own: bool = False) -> None:
        self.study = study
        self._url = url
        self._engine = open_storage(url, own=own)
        with translated(url):
            self._make_tables()
            self._ahead_s = self._clock_ahead_s()

    @property
    def now_s(self) -> float:
        """Seconds since the epoch by the database's clock: machines' own clocks differ."""
        return time.time() + self._ahead_s

    @property
    def generation(self) -> str:
        """What tells the study from one of the same name before it was started anew."""
        with self.reading() as db:
            return self.born(db)

    def born(self, db: Connection) -> str:
        """The same as ``db`` sees it: within a change nobody starts the study anew."""
        return str(db.scalars(select(STUDIES.c.born).where(STUDIES.c.study == self.study)).one())

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to look with.

        Raises:
            AutopilotError: the database failed.
        """
        with translated(self._url), self._engine.connect() as db:
            yield db

    def change(self, change: Callable[[Connection], Done]) -> Done:
        """What ``change`` gives, made in one transaction with the study to itself; again where the connection broke.

        ``change`` may have been made although the connection broke: it has to see that by itself.

        Raises:
            AutopilotError: the database failed for longer.
        """
        with translated(self._url):
            for pause_s in _PAUSES_S:
                try:
                    with self._turn() as db:
                        return change(db)
                except DBAPIError as exc:
                    if not (exc.connection_invalidated or isinstance(exc, OperationalError)):
                        raise
                time.sleep(pause_s)
            with self._turn() as db:
                return change(db)

    def renamed(self, db: Connection) -> str:
        """Within a change: the study is another one from here on; its generation."""
        born = uuid.uuid4().hex
        db.execute(update(STUDIES).where(STUDIES.c.study == self.study).values(born=born))
        return born

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @contextmanager
    def _turn(self) -> Iterator[Connection]:
        with self._engine.begin() as db:
            db.execute(update(STUDIES).where(STUDIES.c.study == self.study).values(turn=STUDIES.c.turn + 1))
            yield db

    def _make_tables(self) -> None:
        for attempt in (1, 2, 3):
            try:
                _TABLES.create_all(self._engine)
                break
            except DBAPIError:  # two runs that start at once make the same table
                if attempt == 3:
                    raise
                time.sleep(0.2 * attempt)
        try:
            with self._engine.begin() as db:
                if db.scalar(select(STUDIES.c.study).where(STUDIES.c.study == self.study)) is None:
                    db.execute(insert(STUDIES).values(study=self.study, turn=0, born=uuid.uuid4().hex))
        except IntegrityError:  # another run has just made it
            pass

    def _clock_ahead_s(self) -> float:
        if self._engine.dialect.name != "postgresql":
            return 0.0
        with self._engine.connect() as db:
            return float(db.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0) - time.time()
