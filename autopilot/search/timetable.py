"""For what there is time at the end of a study, by how long finalists should take and how long they did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autopilot.result import TrialRecord
from autopilot.spec.units import format_duration

# So much of its time a study may end late for a finalist where none is shown to hold yet: without it nothing is
# recommended, and the search was for nothing.
LATE_SHARE = 0.2
# Seconds, and a share of the timeout, that nobody has to be told of.
_LATE_TOLD_S, _LATE_TOLD_SHARE = 5.0, 0.05


@dataclass(slots=True)
class Timetable:
    """Whether there is time for what is to be done before ``deadline`` (on ``clock``).

    ``expected``: seconds that measuring a trial's variant again should take; what finalists really took corrects it.
    ``late_s``: how long after the deadline a finalist may end while none is shown to hold.
    """

    expected: Callable[[TrialRecord], float]
    deadline: float
    late_s: float
    clock: Callable[[], float] = time.monotonic
    _took: list[tuple[float, float]] = field(default_factory=list)  # expected, and what it was

    def expected_s(self, record: TrialRecord) -> float:
        """Seconds that measuring ``record``'s variant again should take, by what finalists took so far."""
        expected, took = (sum(column) for column in zip(*self._took, strict=True)) if self._took else (1.0, 1.0)
        return self.expected(record) * took / expected

    def took(self, record: TrialRecord, seconds: float) -> None:
        """Learn what a finalist took."""
        expected = self.expected(record)
        if expected > 0 and seconds > 0:
            self._took.append((expected, seconds))

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, below 0 after it."""
        return self.deadline - self.clock()

    def has(self, seconds: float) -> bool:
        """Whether what takes so long ends in time."""
        return seconds <= self.left_s

    def has_for(self, record: TrialRecord) -> bool:
        """Whether measuring ``record``'s variant again should end in time."""
        return self.has(self.expected_s(record))

    def may_be_late_for(self, record: TrialRecord) -> bool:
        """Whether measuring ``record``'s variant again should end not too late, where nothing holds yet."""
        return self.expected_s(record) <= self.left_s + self.late_s

    def lack(self, record: TrialRecord) -> str:
        """What there is too little time for, in words."""
        time_s, left_s = self.expected_s(record), max(0.0, self.left_s)
        return f"measuring trial {record.number} again should take {time_s:.0f} s, and {left_s:.0f} s are left"


def overrun(timeout_s: float, searched_s: float, elapsed_s: float) -> tuple[str, ...]:
    """What is to be said where a study took clearly longer than its ``timeout_s``; nothing else.

    ``searched_s``: until the search ended; ``elapsed_s``: until the result was there.

    >>> overrun(900.0, 700.0, 1000.0)
    ('the study took 16m40s for its timeout of 15m: the search ended after 11m40s, and what came after it took 5m',)
    """
    if elapsed_s <= timeout_s + max(_LATE_TOLD_S, _LATE_TOLD_SHARE * timeout_s):
        return ()
    took, ended = format_duration(elapsed_s), format_duration(searched_s)
    again = format_duration(elapsed_s - searched_s)
    said = f"the study took {took} for its timeout of {format_duration(timeout_s)}"
    return (f"{said}: the search ended after {ended}, and what came after it took {again}",)
