"""Observer: what a running study tells whoever watches it. Nothing here prints."""

from __future__ import annotations

from typing import Protocol

from autopilot.errors import Failure


class FinishedTrial(Protocol):
    """The part of a TrialRecord that observers use."""

    @property
    def number(self) -> int: ...

    @property
    def state(self) -> str: ...

    @property
    def failure(self) -> Failure | None: ...

    @property
    def reason(self) -> str: ...


class Observer(Protocol):
    """Told by the search what happens, in the order it happens; every method returns at once."""

    def phase(self, text: str) -> None:
        """A part of the study begins (``measuring the model as given``)."""

    def doing(self, text: str) -> None:
        """What is done now within the phase or trial (``measuring latency``): for live displays."""

    def trial_started(self, number: int, total: int, seconds_left: float, recipe: str, deployment: str) -> None:
        """Trial ``number`` (0-based) of at most ``total`` begins; ``seconds_left`` of the search's time."""

    def trial_finished(self, record: FinishedTrial, best: str | None, against_budget: str) -> None:
        """A trial ended; ``best`` is the best so far in one line, None while nothing fits."""

    def note(self, text: str) -> None:
        """Something the user should know: a warning, a retry."""

    def finished(self) -> None:
        """The study is over."""


class NullObserver:
    """Watches nothing."""

    def phase(self, text: str) -> None:
        pass

    def doing(self, text: str) -> None:
        pass

    def trial_started(self, number: int, total: int, seconds_left: float, recipe: str, deployment: str) -> None:
        pass

    def trial_finished(self, record: FinishedTrial, best: str | None, against_budget: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def finished(self) -> None:
        pass
