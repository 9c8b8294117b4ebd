"""Leases of trials: how long they last, and when they are renewed."""

from __future__ import annotations

import contextlib

from autopilot.errors import AutopilotError
from autopilot.observer import FinishedTrial, Observer
from autopilot.search.ledger import Ledger

# A pass starts several children, each of which may take the spec's step_timeout; then there is some slack.
_CHILDREN = 2.0
_SLACK_S = 60.0


def lease_s(step_timeout_s: float) -> float:
    """How long a trial is leased at a time, in seconds: longer than any pass of it."""
    return _CHILDREN * step_timeout_s + _SLACK_S


class Renewing:
    """An observer that renews the running trial's lease before it passes on what is told.

    The search tells its observer when a pass begins, so a lease is renewed between passes: a thread that
    did so by the clock would disturb what is being timed.
    """

    def __init__(self, observer: Observer, ledger: Ledger) -> None:
        self._observer = observer
        self._ledger = ledger

    def _renew(self) -> None:
        # Where the database is away for a moment the lease lasts for a few passes more; the record will tell.
        with contextlib.suppress(AutopilotError):
            self._ledger.renew()

    def phase(self, text: str) -> None:
        self._renew()
        self._observer.phase(text)

    def doing(self, text: str) -> None:
        self._renew()
        self._observer.doing(text)

    def trial_started(self, number: int, total: int, seconds_left: float, recipe: str, deployment: str) -> None:
        self._observer.trial_started(number, total, seconds_left, recipe, deployment)

    def trial_finished(self, record: FinishedTrial, best: str | None, against_budget: str) -> None:
        self._observer.trial_finished(record, best, against_budget)

    def note(self, text: str) -> None:
        self._renew()
        self._observer.note(text)

    def finished(self) -> None:
        self._observer.finished()
