"""What was said of a variant beside what its raw readings say: rows of a recomputation, and how far they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopilot.budget import Verdict
from autopilot.errors import BadInput
from autopilot.profile import Interval, Measurement
from autopilot.result.jsonable import measured_to_json, plain, verdict_to_json

# The same readings give the same figures; other versions of numpy may add numbers up in another order.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Stored:
    """What a run said of one variant."""

    measured: Mapping[str, Measurement]
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of one variant: what was said then and what its readings say now.

    ``what`` is ``trial``, ``verified`` (a finalist's second measurement) or ``baseline`` (the baseline beside
    that). ``again`` is None where nothing can be computed; ``note`` then says why. ``deviation`` is the
    largest one of any figure, as a share of the largest of value and bounds, on ``axis``.
    """

    trial: int
    what: str
    stored: Stored
    again: Stored | None = None
    deviation: float = 0.0
    axis: str = ""
    note: str = ""
    size_bytes: int = 0

    @property
    def agrees(self) -> bool | None:
        """Whether verdict and figures are the same; None where nothing could be computed."""
        if self.again is None:
            return None
        return _limits(self.stored) == _limits(self.again) and self.deviation <= TOLERANCE

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "trial": self.trial,
            "what": self.what,
            "agrees": self.agrees,
            "stored": verdict_to_json(self.stored.verdict),
            "recomputed": verdict_to_json(self.again.verdict) if self.again else None,
            "deviation": plain(self.deviation) if self.again else None,
            "axis": self.axis,
            "note": self.note,
            "bytes": self.size_bytes,
        }
        return value | {"measured": measured_to_json(self.again.measured) if self.again else {}}


@dataclass(frozen=True, slots=True)
class Recomputation:
    """All rows of a run, in the order of trials."""

    rows: tuple[Row, ...]

    @property
    def agree(self) -> bool:
        """False where any recomputed row differs from what was stored."""
        return not any(row.agrees is False for row in self.rows)

    def of_trial(self, number: int) -> Recomputation:
        """The rows of one trial.

        Raises:
            BadInput: there is no such trial.
        """
        rows = tuple(row for row in self.rows if row.trial == number)
        if not rows:
            known = sorted({row.trial for row in self.rows})
            raise BadInput(f"there is no trial {number}.", f"This run has trials {known[0]} to {known[-1]}.")
        return Recomputation(rows)

    @property
    def sentence(self) -> str:
        """What it comes to, for people."""
        done = [row for row in self.rows if row.agrees is not None]
        without = len(self.rows) - len(done)
        rest = f" {without} without readings." if without else ""
        wrong = [f"trial {row.trial} ({row.what})" for row in done if not row.agrees]
        if not done:
            return f"Nothing could be recomputed.{rest}"
        if len(done) == 1 and not wrong:
            return f"The recomputed verdict agrees with the stored one, and so do its figures.{rest}"
        if wrong:
            return f"{len(wrong)} of {len(done)} recomputed differ from what was stored: {', '.join(wrong)}.{rest}"
        return f"All {len(done)} recomputed verdicts agree with the stored ones, and so do their figures.{rest}"

    def to_json(self) -> dict[str, Any]:
        rows = [row.to_json() for row in self.rows]
        return {"schema": 1, "agree": self.agree, "tolerance": TOLERANCE, "text": self.sentence, "rows": rows}


def deviation(stored: Measurement, again: Measurement | None) -> float:
    """The largest difference of value and bounds, as a share of the largest of them; infinite where one is missing.

    >>> deviation(Measurement("x", 10.0, 9.0, 11.0), Measurement("x", 10.0, 9.0, 12.5))
    0.12
    """
    if again is None:
        return math.inf
    pairs = [((stored.value, stored.low, stored.high), (again.value, again.low, again.high))]
    pairs.append((_sides(stored.ratio), _sides(again.ratio)))
    return max(_difference(a, b) for a, b in pairs)


def _sides(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (interval.value, interval.low, interval.high) if interval is not None else (None, None, None)


def _difference(a: tuple[float | None, ...], b: tuple[float | None, ...]) -> float:
    differences = [0.0]
    finite = [abs(x) for x in (*a, *b) if x is not None and math.isfinite(x)]
    scale = max(finite, default=0.0) or 1.0
    for x, y in zip(a, b, strict=True):
        if x == y or (x is not None and y is not None and math.isnan(x) and math.isnan(y)):
            continue
        both = x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
        differences.append(abs(x - y) / scale if both and x is not None and y is not None else math.inf)
    return max(differences)


def _limits(said: Stored) -> tuple[Any, ...] | None:
    return None if said.verdict is None else (said.verdict.overall, dict(said.verdict.per_limit))
