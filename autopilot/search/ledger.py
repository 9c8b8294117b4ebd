"""The ledger of a study: who works on which variant, and what became of it. One for all runs that share it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from autopilot.errors import AutopilotError, BadInput
from autopilot.recipe import Variant
from autopilot.result import TrialRecord
from autopilot.search.database import CLAIMS, RECORDS, Database
from autopilot.search.storage import masked
from autopilot.search.worker import Worker

# A variant that was cut off so often is left alone: it may be what takes the machine down.
MOST_ATTEMPTS = 2
# A lease is renewed when this part of it is over: often enough that a missed renewal does no harm.
_RENEW_SHARE = 0.25


class _State(StrEnum):
    """Of a claim: FREE was cut off and is to be tried again, LOST was cut off too often."""

    RUNNING = "running"
    DONE = "done"
    FREE = "free"
    LOST = "lost"


class Ledger:
    """Claims and records of the study ``study`` in the database at ``url``.

    A claim is leased for ``lease_s`` at a time. Without a ``lease_s`` the ledger is this run's alone
    (its folder is locked): whoever else holds a claim is gone.

    Raises:
        BadInput: the database can't be opened.
        AutopilotError: it fails; so in every method. Claims and records: another run started the study anew.
    """

    def __init__(self, url: str, study: str, *, worker: Worker, lease_s: float | None = None) -> None:
        self.shown = masked(url)
        self.study = study
        self._database = Database(url, study, own=lease_s is None)
        self._generation = self._database.generation
        self._me = json.dumps(worker.to_json(), sort_keys=True)
        self._lease_s = lease_s
        self._held: str | None = None
        self._renewed = 0.0

    @property
    def is_shared(self) -> bool:
        """Whether other runs may work on the same study now."""
        return self._lease_s is not None

    @property
    def generation(self) -> str:
        """What tells the study from one of the same name before it was started anew."""
        return self._generation

    def join(self) -> None:
        """Take part in the study as it is now, for a run that knows nothing of its trials yet."""
        self._generation = self._database.generation

    # ---- claims --------------------------------------------------------------------------------

    def claim(self, variant: Variant, most: int) -> bool:
        """Take ``variant`` for this run, unless it was tried, is being tried, or ``most`` trials are under way or done.

        Sound however many ask at once: a change has the study to itself from its first look to its last write.
        """

        def take(db: Connection) -> bool:
            self._check_generation(db)
            found = self._claim_of(db, variant.id)
            if found is not None and self._is_mine(found):  # taken, but the answer was lost on its way
                return True
            if found is not None and found["state"] != _State.FREE:
                return False
            if self._count(db) + self._running(db) >= most:
                return False
            values = {"state": _State.RUNNING.value, "worker": self._me, "until": self._until()}
            if found is None:
                more = {"study": self.study, "variant": variant.id, "attempts": 1}
                db.execute(insert(CLAIMS).values(**values, **more, body=json.dumps(variant.to_json())))
            else:
                again = found["attempts"] + 1
                db.execute(update(CLAIMS).where(*self._at(variant.id)).values(**values, attempts=again))
            return True

        taken = self._database.change(take)
        if taken:
            self._held, self._renewed = variant.id, time.monotonic()
        return taken

    def renew(self) -> None:
        """Lengthen the lease of what this run holds, once a part of it is over. Not while requests are timed."""
        if self._held is None or self._lease_s is None:
            return
        if time.monotonic() - self._renewed < _RENEW_SHARE * self._lease_s:
            return
        at = (*self._at(self._held), CLAIMS.c.state == _State.RUNNING.value, CLAIMS.c.worker == self._me)
        self._database.change(lambda db: db.execute(update(CLAIMS).where(*at).values(until=self._until())))
        self._renewed = time.monotonic()

    def release(self) -> None:
        """Give up what this run holds as if it had never been taken."""
        if self._held is None:
            return
        held = self._held

        def drop(db: Connection) -> None:
            found = self._claim_of(db, held)
            if found is None or not self._is_mine(found):
                return
            if found["attempts"] > 1:  # it was cut off before: that is not forgotten
                values = {"state": _State.FREE.value, "attempts": found["attempts"] - 1}
                db.execute(update(CLAIMS).where(*self._at(held)).values(**values))
            else:
                db.execute(delete(CLAIMS).where(*self._at(held)))

        self._database.change(drop)
        self._held = None

    def give_up(self) -> None:
        """End the trial that this run holds: it is to be tried again, unless it was cut off before."""
        for row in self._claims(_State.RUNNING):
            if self._is_mine(row):
                self._database.change(partial(self._end, row))
        self._held = None

    def recover(self, *, all_free: bool = False) -> list[Variant]:
        """End the trials of runs that are gone; the variants that are to be tried again.

        Once only: what was cut off ``MOST_ATTEMPTS`` times is left alone. With ``all_free`` also those
        that were freed before and taken by nobody since.
        """
        stale = [row for row in self._claims(_State.RUNNING) if self._is_stale(row)]
        freed = [row for row in stale if self._database.change(partial(self._end, row))]
        if all_free:
            freed = list(self._claims(_State.FREE))
        return [Variant.from_json(json.loads(row["body"])) for row in freed]

    def others(self) -> frozenset[str]:
        """Ids of the variants that other runs are trying now."""
        return frozenset(row["variant"] for row in self._claims(_State.RUNNING) if not self._is_mine(row))

    def lost(self) -> frozenset[str]:
        """Ids of the variants that are tried no more: they were cut off too often."""
        return frozenset(row["variant"] for row in self._claims(_State.LOST))

    # ---- records -------------------------------------------------------------------------------

    def finish(self, record: TrialRecord) -> int | None:
        """Store the record of the trial that this run holds; its number, the next one of the study.

        None where the lease ran out and another run has taken the variant: then its record will stand.
        """

        def store(db: Connection) -> int | None:
            self._check_generation(db)
            found = self._claim_of(db, record.id)
            if found is None or found["worker"] != self._me:
                return None
            if found["state"] == _State.DONE:  # stored, but the answer was lost on its way
                mine = (RECORDS.c.study == self.study, RECORDS.c.variant == record.id)
                return int(db.scalars(select(RECORDS.c.number).where(*mine)).one())
            if found["state"] != _State.RUNNING:
                return None
            number = self._count(db)
            body = json.dumps(record.to_json() | {"number": number}, allow_nan=False)
            db.execute(insert(RECORDS).values(study=self.study, number=number, variant=record.id, body=body))
            db.execute(update(CLAIMS).where(*self._at(record.id)).values(state=_State.DONE.value))
            return number

        number = self._database.change(store)
        self._held = None
        return number

    def read(self, first: int) -> list[TrialRecord]:
        """The records of all runs, from number ``first`` on, in order; there are no gaps."""
        wanted = select(RECORDS.c.body).where(RECORDS.c.study == self.study, RECORDS.c.number >= first)
        with self._database.reading() as db:
            found = db.scalars(wanted.order_by(RECORDS.c.number)).all()
            self._check_generation(db)  # after them: what was read before was there before
        return [TrialRecord.from_json(json.loads(body)) for body in found]

    @property
    def finished(self) -> int:
        """The number of records."""
        with self._database.reading() as db:
            return self._count(db)

    def clear(self) -> None:
        """Forget all trials: the study is started anew.

        Raises:
            BadInput: another run is at work on it.
        """

        def drop(db: Connection) -> str:
            busy = [row for row in self._claimed(db, _State.RUNNING) if not self._is_stale(row)]
            if busy:
                workers = {Worker.from_json(json.loads(row["worker"])) for row in busy}
                names = " and ".join(sorted(f"process {w.pid} on {w.host}" for w in workers))
                raise BadInput(
                    f"the study {self.study} in {self.shown} can't be started anew while others work on it ({names}).",
                    "Wait for them to end, or run without --fresh to join them.",
                )
            for table in (CLAIMS, RECORDS):
                db.execute(delete(table).where(table.c.study == self.study))
            return self._database.renamed(db)

        self._generation = self._database.change(drop)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    # ---- within --------------------------------------------------------------------------------

    def _end(self, seen: RowMapping, db: Connection) -> bool:
        """Free a stale claim, or write it off; whether it is to be tried again. Nothing where it changed meanwhile."""
        now = self._claim_of(db, seen["variant"])
        if now is None or now["state"] != _State.RUNNING:
            return False
        if (now["worker"], now["until"]) != (seen["worker"], seen["until"]):
            return False
        again = bool(now["attempts"] < MOST_ATTEMPTS)
        state = _State.FREE if again else _State.LOST
        db.execute(update(CLAIMS).where(*self._at(seen["variant"])).values(state=state.value))
        return again

    def _is_mine(self, claim: RowMapping) -> bool:
        return bool(claim["state"] == _State.RUNNING and claim["worker"] == self._me)

    def _is_stale(self, claim: RowMapping) -> bool:
        """Whether the run that holds ``claim`` is gone, as far as can be told from here."""
        if claim["worker"] == self._me:
            return False
        if not self.is_shared:
            return True
        return Worker.from_json(json.loads(claim["worker"])).is_gone or bool(claim["until"] < self._database.now_s)

    def _check_generation(self, db: Connection) -> None:
        """Return when the study is the one that this run works on.

        Raises:
            AutopilotError: it was started anew since: trials of before have no place among those of now.
        """
        if self._database.born(db) != self._generation:
            raise AutopilotError(
                f"the study {self.study} in {self.shown} was started anew by another run (--fresh) while this one was "
                "at work on it.",
                "The same command joins the new one.",
            )

    def _claims(self, state: _State) -> Sequence[RowMapping]:
        with self._database.reading() as db:
            return self._claimed(db, state)

    def _claimed(self, db: Connection, state: _State) -> Sequence[RowMapping]:
        wanted = select(CLAIMS).where(CLAIMS.c.study == self.study, CLAIMS.c.state == state.value)
        return db.execute(wanted.order_by(CLAIMS.c.variant)).mappings().all()

    def _claim_of(self, db: Connection, variant: str) -> RowMapping | None:
        return db.execute(select(CLAIMS).where(*self._at(variant))).mappings().one_or_none()

    def _at(self, variant: str) -> tuple[Any, ...]:
        return CLAIMS.c.study == self.study, CLAIMS.c.variant == variant

    def _count(self, db: Connection) -> int:
        return int(db.scalar(select(func.count()).select_from(RECORDS).where(RECORDS.c.study == self.study)) or 0)

    def _running(self, db: Connection) -> int:
        wanted = (CLAIMS.c.study == self.study, CLAIMS.c.state == _State.RUNNING.value)
        return int(db.scalar(select(func.count()).select_from(CLAIMS).where(*wanted)) or 0)

    def _until(self) -> float:
        return self._database.now_s + (self._lease_s or 0.0)
