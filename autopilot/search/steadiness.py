"""Did the machine keep still? Drift of the baseline through a study, and readings in which the ratio itself moved."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from autopilot import stats
from autopilot.profile import LatencyReading

# A ratio whose two halves differ by this much, for certain, is no figure: neighbours of another machine's
# owner come and go, but between interleaved blocks they hit both models alike.
SWING = 0.25
_FEWEST_BLOCKS = 8
# A median moves by about this much on a quiet machine without any meaning.
_QUIET = 0.02
# So many of the control's standard deviations are no drift.
_SPREADS = 3.0
# The drift that a verified figure carries: what nine in ten of the study's readings stayed within.
_TYPICAL = 90.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One latency pass: the variant's requests, the baseline's beside them, and how far the machine had moved."""

    latency: LatencyReading
    beside: LatencyReading | None
    drift: float


@dataclass(slots=True)
class Drift:
    """The baseline's median through the study, against its first reading on the same samples.

    ``allowed``: the share by which it may move before a reading is taken again; None for any.
    ``spread``: the control's, below which nothing is drift.
    """

    allowed: float | None
    spread: float = 0.0
    _reference_s: dict[str, float] = field(default_factory=dict)
    _seen: list[float] = field(default_factory=list)
    _last: float = 0.0

    def begin(self, split: str, reading: LatencyReading) -> None:
        """Take ``reading`` of the baseline as what later ones on ``split`` are compared with."""
        self._reference_s[split] = _median(reading)

    def of(self, split: str, baseline: LatencyReading | None, *, verifying: bool) -> float:
        """How much slower (+) or faster (-) the baseline is now than at its first reading on ``split``.

        While ``verifying`` at least what the study typically saw: a limit must hold through that too.
        """
        if baseline is None:
            return 0.0
        reference_s = self._reference_s.get(split)
        now = _median(baseline) / reference_s - 1 if reference_s else 0.0
        return max(now, self._typical(), key=abs) if verifying else now

    def note(self, split: str, baseline: LatencyReading | None) -> None:
        """Remember a finished reading of the baseline."""
        if baseline is None:
            return
        if split not in self._reference_s:
            self.begin(split, baseline)
        self._seen.append(self.of(split, baseline, verifying=False))

    def _typical(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        low, high = np.percentile(self._seen, [100 - _TYPICAL, _TYPICAL])
        return float(max(low, high, key=abs))

    @property
    def threshold(self) -> float:
        """The drift above which a reading is taken again."""
        return max(self.allowed or 0.0, _SPREADS * self.spread, _QUIET)

    def moved(self, reading: Reading) -> str | None:
        """Why ``reading`` should be taken again, or None.

        A machine that stays where it moved to isn't waited for: the second reading in a row at the
        same speed is kept, and its figures carry the drift.
        """
        before, self._last = self._last, reading.drift
        if self.allowed is None or abs(reading.drift) <= self.threshold:
            return None
        if abs(reading.drift - before) <= self.threshold:
            return None
        return f"the machine is {_by(reading.drift)} than at the start"

    def remark(self, reading: Reading) -> str | None:
        """What a report should say of the drift of a kept reading, or None."""
        if abs(reading.drift) <= self.threshold:
            return None
        return f"the machine was {_by(reading.drift)} than at the start; absolute figures carry that"


def _by(drift: float) -> str:
    return f"{abs(drift) * 100:.0f}% {'slower' if drift > 0 else 'faster'}"


def drift_of(remark: str) -> int | None:
    """The percents that ``Drift.remark`` speaks of, below 0 for a faster machine; None for another text.

    >>> drift_of("the machine was 6% faster than at the start; absolute figures carry that"), drift_of("odd")
    (-6, None)
    """
    found = re.match(r"the machine was (\d+)% (slower|faster) than at the start", remark)
    return None if found is None else int(found[1]) * (1 if found[2] == "slower" else -1)


def swing(reading: Reading) -> str | None:
    """What is wrong when the ratio of the two models changed within one reading, or None.

    Drift that hits both cancels; what hits one of them alone makes the ratio worthless.
    """
    if reading.beside is None or reading.latency.traffic is not None:
        return None  # scheduled traffic changes by itself, and so may its ratio
    blocks = min(reading.latency.block_wall_s.size, reading.beside.block_wall_s.size)
    if blocks < 2 * _FEWEST_BLOCKS:
        return None
    halves = []
    for half in (slice(0, blocks // 2), slice(blocks // 2, blocks)):
        (a, a_block), (b, b_block) = (_part(r, half) for r in (reading.latency, reading.beside))
        halves.append(stats.ratio_interval(a, a_block, b, b_block, q=50.0))
    first, second = halves
    apart = max(first.value / second.value, second.value / first.value) - 1
    if apart <= SWING or (first.low <= second.high and second.low <= first.high):
        return None
    return f"the ratio to the baseline changed by {100 * apart:.0f}% while it was measured"


def _part(reading: LatencyReading, blocks: slice) -> tuple[np.ndarray, np.ndarray]:
    inside = (reading.block >= blocks.start) & (reading.block < blocks.stop)
    return reading.latency_s[inside], reading.block[inside]


def _median(reading: LatencyReading) -> float:
    """What tells the machine's speed: of scheduled requests the time of a run, since waiting follows the load."""
    if reading.traffic is not None and reading.traffic.service_s.size:
        return float(np.median(reading.traffic.service_s))
    return float(np.median(reading.latency_s))
