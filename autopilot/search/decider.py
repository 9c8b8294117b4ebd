"""When a latency pass has seen enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from autopilot.budget import Budget, Judgement
from autopilot.profile import Interval, LatencyReading, Measurement
from autopilot.search.outcome import Effort, GiveUp
from autopilot.stats import early_stretch

# Fewer blocks tell too little of how alike neighbours are: a correlation of ten figures is a guess.
LEAST_BLOCKS = 20
# Enough to turn a variant away that is far off, twice in a row: its interval must clear the bound by the stretch of
# an early look, some three times its width, which no doubt about the neighbours makes up for.
PROBE_BLOCKS = 10
# A window of scheduled requests is long, and starts from an empty queue: neighbours hardly resemble each other.
LEAST_WINDOWS = 6

# The two parts of a width add in quadrature: at this multiple of the floor the requests' own part is 46% of it,
# and to halve that would take four times the requests for 8% of the width.
_NEARLY_ALL = 1.1

Summarise = Callable[[LatencyReading, LatencyReading | None], Mapping[str, Measurement]]


class Decider:
    """True once every latency limit is decided and the ratios of the objectives are sure enough.

    While screening, one limit certainly violated is enough. A limit too close to call is measured
    to the cap, or until what is left of its width is what processes differ by (``floor``: half of it, as
    a share of the value), which more requests don't narrow. Looking again and again finds a lucky moment,
    so an interval must clear its bound by more the earlier it is (``stats.early_stretch``), and the look
    after it must agree: that takes a quarter more time, and what was luck is then gone. Verdicts are given
    on the plain intervals of all that was read. ``give_up`` tells why a variant can't win, from measurements
    whose intervals were widened likewise. One Decider serves one pass.
    """

    def __init__(
        self,
        summarise: Summarise,
        budget: Budget,
        objectives: str | Sequence[str],
        effort: Effort,
        *,
        floor: float = 0.0,
        give_up: GiveUp = lambda measured: None,
    ) -> None:
        self._summarise = summarise
        self._budget = budget
        self._objectives = (objectives,) if isinstance(objectives, str) else tuple(objectives)
        self._effort = effort
        self._floor = floor
        self._give_up = give_up
        self._was_decided = False

    def __call__(self, reading: LatencyReading, beside: LatencyReading | None) -> bool:
        is_probe = self._effort.ends_early and reading.traffic is None
        least = LEAST_BLOCKS if reading.traffic is None else LEAST_WINDOWS
        blocks = reading.block_wall_s.size
        if blocks < (PROBE_BLOCKS if is_probe else least):
            return False
        measured = self._summarise(reading, beside)
        spent_s = float(reading.block_wall_s.sum()) + (float(beside.block_wall_s.sum()) if beside else 0.0)
        before, (decided, is_out) = self._was_decided, self._limits(measured, spent_s)
        self._was_decided = is_out or (decided and blocks >= least)
        if not (before and self._was_decided):
            return False
        return is_out or spent_s >= self._effort.precise_s or self._sure(measured)

    def _limits(self, measured: Mapping[str, Measurement], spent_s: float) -> tuple[bool, bool]:
        """Whether the limits are decided as far as they can be, and whether that is since the variant is out."""
        stretch = early_stretch(spent_s / self._effort.cap_s)
        judged = {
            limit: limit.judge(stretched(measured[limit.axis], stretch))
            for limit in self._budget.limits
            if limit.axis in measured
        }
        if self._effort.ends_early:
            wide = {axis: stretched(m, stretch) for axis, m in measured.items()}
            if Judgement.OUT in judged.values() or self._give_up(wide) is not None:
                return True, True
        open_ = [limit for limit, said in judged.items() if said is Judgement.UNDECIDED]
        return all(self._exhausted(limit.interval(measured[limit.axis])) for limit in open_), False

    def _sure(self, measured: Mapping[str, Measurement]) -> bool:
        read = [axis for axis in self._objectives if axis in measured]  # others are no figures of this pass
        return all(self._known(measured.get(axis)) for axis in read or ["latency_p50_ms"])

    def _known(self, objective: Measurement | None) -> bool:
        if objective is None or objective.value is None:
            return True
        figures = objective.ratio
        if figures is None:
            if objective.low is None or objective.high is None:
                return True
            figures = Interval(objective.value, objective.low, objective.high)
        return _half_width(figures) <= math.hypot(self._effort.precision, self._floor)

    def _exhausted(self, figures: Interval | None) -> bool:
        """Whether more requests would hardly narrow the interval: nearly all of it is the floor."""
        return figures is not None and self._floor > 0 and _half_width(figures) <= _NEARLY_ALL * self._floor


def _half_width(figures: Interval) -> float:
    """Half the interval's width as a share of its value."""
    return (figures.high - figures.low) / 2 / abs(figures.value) if figures.value else math.inf


def stretched(measured: Measurement, stretch: float) -> Measurement:
    """``measured`` with both its intervals ``stretch`` times as wide."""
    value, low, high, ratio = measured.value, measured.low, measured.high, measured.ratio
    if ratio is not None:
        ratio = Interval(
            ratio.value, _further(ratio.value, ratio.low, stretch), _further(ratio.value, ratio.high, stretch)
        )
    if value is None or low is None or high is None:
        return replace(measured, ratio=ratio)
    return replace(measured, low=_further(value, low, stretch), high=_further(value, high, stretch), ratio=ratio)


def _further(value: float, bound: float, stretch: float) -> float:
    return value + stretch * (bound - value)
