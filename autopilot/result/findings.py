"""What a study found besides its winner: the front, fallbacks, and, where nothing fits, what would change that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopilot.budget import Limit
from autopilot.profile import Interval, Measurement
from autopilot.result.jsonable import (
    interval_from_json,
    interval_to_json,
    measured_from_json,
    measured_to_json,
)
from autopilot.result.trial import Candidate


@dataclass(frozen=True, slots=True)
class FrontMember:
    """A variant that no other beats in all objectives; ``measured`` holds the objectives' axes.

    ``certain``: no other may, within the intervals, be as good in all of them. ``verified``: the figures are
    those of a second measurement, on data that chose nothing.
    """

    id: str
    number: int
    measured: Mapping[str, Measurement]
    certain: bool
    verified: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "number": self.number,
            "certain": self.certain,
            "verified": self.verified,
            "measured": measured_to_json(self.measured),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FrontMember:
        measured = measured_from_json(value["measured"])
        return cls(str(value["id"]), int(value["number"]), measured, bool(value["certain"]), bool(value["verified"]))


@dataclass(frozen=True, slots=True)
class Fallback:
    """A rung of the ladder below the winner: faster than the one above, with the least quality lost.

    ``verified`` as for a member of the front; ``reason`` says in a sentence why it is there.
    """

    candidate: Candidate
    verified: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {**self.candidate.to_json(), "verified": self.verified, "reason": self.reason}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fallback:
        return cls(Candidate.from_json(value), bool(value["verified"]), str(value["reason"]))


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One limit that would have to give, alone, for one variant to keep the budget.

    ``needed`` is the limit as it would have to be, with the margin of ``limit``; ``objective`` what the variant
    then gives.
    """

    limit: Limit
    needed: Limit
    id: str
    number: int
    objective: Mapping[str, Measurement]
    verified: bool

    @property
    def text(self) -> str:
        """What it would admit, in a sentence without its full stop."""
        gives = ", ".join(f"{axis} {m.value:.4g}" for axis, m in self.objective.items() if m.value is not None)
        word, sure = ("would", "as measured again") if self.verified else ("may", "as screened, not measured again")
        moved = f"{self.limit.axis} {self.needed.text} in place of {self.limit.text}"
        return f"{moved} {word} admit trial {self.number} ({gives}, {sure})"

    @property
    def by(self) -> float:
        """How far the bound moves, as a share of itself; of a bound of 0, in its own unit."""
        return abs(self.needed.bound - self.limit.bound) / (abs(self.limit.bound) or 1.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "axis": self.limit.axis,
            "direction": "raise" if self.limit.upper else "lower",
            "limit": self.limit.to_json(),
            "needed": self.needed.to_json(),
            "by": self.by,
            "id": self.id,
            "number": self.number,
            "objective": measured_to_json(self.objective),
            "verified": self.verified,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Relaxation:
        axis = str(value["axis"])
        return cls(
            limit=Limit.from_json(axis, value["limit"]),
            needed=Limit.from_json(axis, value["needed"]),
            id=str(value["id"]),
            number=int(value["number"]),
            objective=measured_from_json(value["objective"]),
            verified=bool(value["verified"]),
        )


@dataclass(frozen=True, slots=True)
class Binding:
    """How many variants one limit turned away.

    ``out`` all that certainly break it, ``sole`` those that keep every other limit, ``unknown`` those that
    break no other as far as they were measured: a trial ends at its first certain violation.
    """

    axis: str
    out: int
    sole: int
    unknown: int

    def to_json(self) -> dict[str, Any]:
        return {"axis": self.axis, "out": self.out, "sole": self.sole, "unknown": self.unknown}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Binding:
        return cls(str(value["axis"]), int(value["out"]), int(value["sole"]), int(value["unknown"]))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two finalists that tie beside the baseline, read against each other: trial ``faster`` over ``simpler``."""

    faster: int
    simpler: int
    ratio: Interval
    verdict: str
    rounds: int
    requests: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        return {
            "faster": self.faster,
            "simpler": self.simpler,
            "ratio": interval_to_json(self.ratio),
            "verdict": self.verdict,
            "rounds": self.rounds,
            "requests": list(self.requests),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Comparison:
        ratio = interval_from_json(value["ratio"])
        assert ratio is not None
        first, second = value["requests"]
        return cls(
            int(value["faster"]),
            int(value["simpler"]),
            ratio,
            str(value["verdict"]),
            int(value["rounds"]),
            (int(first), int(second)),
        )
