"""When requests come: schedules that are fixed before the first one is sent. Pure, seeded.

An endless traffic is cut into windows that are served one by one. Window k covers the traffic's own time
from k * window_s on, preceded by a ramp: a stretch of the same traffic that fills the queue and isn't counted.

Times between Poisson arrivals are exponential, as in MLPerf LoadGen's server scenario. A rate that changes is
the same process on a clock that runs with the expected number of arrivals (time rescaling).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autopilot.errors import SpecError
from autopilot.profile import Floats
from autopilot.spec import Traffic

# A diurnal rate swings between 1 - DEPTH and 1 + DEPTH times its mean: at the peak nine times the trough.
DEPTH = 0.8
# Points of a diurnal rate's clock in one period: between two the rate is taken as constant.
_GRID = 1024
# A window holds about so many requests, within bounds: shorter ones would be all ramp, longer ones few.
_WINDOW_REQUESTS = 25
_WINDOW_S = (0.25, 2.0)
# Several short periods make a window, so that every window sees a burst and the pause after it.
_LONGEST_CYCLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """Traffic ready to be sent: ``traffic`` with its rate known, and the trace's ``times_s`` where it is one.

    times_s: float64, shape (n,), seconds since the trace's first request, ascending; None without a trace.
    """

    traffic: Traffic
    rate_rps: float
    times_s: Floats | None = None

    @classmethod
    def of(cls, traffic: Traffic) -> Load:
        """The load of a spec's traffic in scenario server.

        A trace is replayed as recorded, from its start, and over again at its end; a rate given
        beside it stretches or compresses it to that mean rate.

        Raises:
            SpecError: the trace can't be read or tells no rate.
        """
        if not traffic.is_trace:
            assert traffic.rate_rps is not None
            return cls(traffic, traffic.rate_rps)
        times_s = read_trace(Path(traffic.arrivals))
        rate_rps = times_s.size / _cycle_s(times_s)
        load = cls(traffic, rate_rps, times_s)
        return load if traffic.rate_rps is None else load.at(traffic.rate_rps)

    def at(self, rate_rps: float) -> Load:
        """The same traffic at another mean rate."""
        if self.times_s is None:
            return replace(self, rate_rps=rate_rps)
        return replace(self, rate_rps=rate_rps, times_s=self.times_s * (self.rate_rps / rate_rps))

    @property
    def window_s(self) -> float:
        """Seconds of one window without its ramp."""
        low, high = _WINDOW_S
        wanted = min(high, max(low, _WINDOW_REQUESTS / self.rate_rps))
        if self.traffic.arrivals == "bursty" and self.traffic.cycle_s <= _LONGEST_CYCLE_S:
            return math.ceil(wanted / self.traffic.cycle_s) * self.traffic.cycle_s
        return wanted


def window(load: Load, index: int, *, window_s: float, ramp_s: float, seed: int) -> Floats:
    """When the requests of window ``index`` are due: float64, ascending, seconds from the window's start.

    Times below 0 belong to the ramp; all lie in [-ramp_s, window_s). The same arguments give the same times.
    """
    start_s, stop_s = index * window_s - ramp_s, (index + 1) * window_s
    if load.times_s is not None:
        return _replayed(load.times_s, start_s, stop_s) - index * window_s
    clock_s, expected = _clock(load, start_s, stop_s)
    rng = np.random.default_rng((seed, index))
    return np.interp(_unit_arrivals(rng, float(expected[-1])), expected, clock_s) - index * window_s


def _unit_arrivals(rng: np.random.Generator, stop: float) -> Floats:
    """A Poisson process of rate 1 on [0, stop)."""
    times = np.cumsum(rng.exponential(size=math.ceil(stop + 6 * math.sqrt(stop) + 10)))
    while times[-1] < stop:
        times = np.concatenate([times, times[-1] + np.cumsum(rng.exponential(size=64))])
    return np.asarray(times[times < stop], dtype=np.float64)


def _clock(load: Load, start_s: float, stop_s: float) -> tuple[Floats, Floats]:
    """Points in time and the requests expected from ``start_s`` until each; between points the rate is constant."""
    traffic = load.traffic
    if traffic.arrivals == "bursty":
        edges_s, share = _burst_edges(traffic, start_s, stop_s)
        rates = np.where(share, load.rate_rps * traffic.cycle_s / traffic.on_s, 0.0)
    elif traffic.arrivals == "diurnal":
        steps = max(2, math.ceil(_GRID * (stop_s - start_s) / traffic.period_s))
        edges_s = np.linspace(start_s, stop_s, steps + 1)
        middle_s = (edges_s[1:] + edges_s[:-1]) / 2
        rates = load.rate_rps * (1 - DEPTH * np.cos(2 * math.pi * middle_s / traffic.period_s))
    else:
        edges_s, rates = np.array([start_s, stop_s]), np.array([load.rate_rps])
    return edges_s, np.concatenate([[0.0], np.cumsum(rates * np.diff(edges_s))])


def _burst_edges(traffic: Traffic, start_s: float, stop_s: float) -> tuple[Floats, np.ndarray]:
    """Where bursts begin and end between two times, and whether each stretch is one; the first begins at 0."""
    cycles = np.arange(math.floor(start_s / traffic.cycle_s), math.ceil(stop_s / traffic.cycle_s) + 1)
    begins = cycles * traffic.cycle_s
    inner = np.concatenate([begins, begins + traffic.on_s])
    inner = np.sort(inner[(inner > start_s) & (inner < stop_s)])
    edges_s = np.concatenate([[start_s], inner, [stop_s]])
    middle_s = (edges_s[1:] + edges_s[:-1]) / 2
    return edges_s, middle_s % traffic.cycle_s < traffic.on_s


def _cycle_s(times_s: Floats) -> float:
    """Seconds after which a trace starts over: its length and one mean gap."""
    return float(times_s[-1] * times_s.size / (times_s.size - 1))


def _replayed(times_s: Floats, start_s: float, stop_s: float) -> Floats:
    cycle_s = _cycle_s(times_s)
    rounds = range(math.floor(start_s / cycle_s), math.floor(stop_s / cycle_s) + 1)
    times = np.concatenate([times_s + k * cycle_s for k in rounds])
    return np.asarray(times[(times >= start_s) & (times < stop_s)], dtype=np.float64)


def read_trace(path: Path) -> Floats:
    """Seconds since its first request of every line of a trace, ascending; a first line in words is a header.

    Raises:
        SpecError: unreadable, a line that is no number, or fewer than two different times.
    """
    right = "One timestamp in seconds a line; the first line may be a header."
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"{path}: the trace can't be read ({exc}).", right) from exc
    times = []
    for number, line in enumerate(lines, start=1):
        text = line.strip().rstrip(",")
        if not text:
            continue
        try:
            value = float(text)
        except ValueError as exc:
            if number == 1:
                continue
            raise SpecError(f"{path}:{number}: {text[:40]!r} is no timestamp in seconds.", right) from exc
        if not math.isfinite(value):
            raise SpecError(f"{path}:{number}: {text[:40]!r} is no timestamp in seconds.", right)
        times.append(value)
    found = np.sort(np.array(times, dtype=np.float64))
    if found.size < 2 or found[0] == found[-1]:
        raise SpecError(f"{path}: the trace holds {found.size} timestamps; it needs two different ones.", right)
    return np.asarray(found - found[0], dtype=np.float64)
