"""dropped_share and max_rate_rps: how much of scheduled traffic is answered, and how much could be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from autopilot import stats
from autopilot.contracts import Axis, Stage
from autopilot.profile import Interval, LatencyReading, Measurement, Profile, TrafficReading

DROPPED = Axis("dropped_share", False, Stage.LATENCY, "share of the requests that came and were not answered in time")
MAX_RATE = Axis(
    "max_rate_rps", True, Stage.LATENCY, "highest request rate at which every latency limit in milliseconds holds"
)
_NO_TRAFFIC = "requests came one after the other: it is measured in traffic of scenario server"
# Above this share of a server's capacity, queues take hundreds of service times to reach their steady length.
_NEAR = 0.95
_TAIL = 0.025  # 2.5% on each side, as all intervals


class TrafficMeter:
    """Reads ``Profile.traffic``."""

    name = "traffic"
    axes: tuple[Axis, ...] = (DROPPED, MAX_RATE)

    def axis(self, name: str) -> Axis | None:
        return next((axis for axis in self.axes if axis.name == name), None)

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        traffic = profile.traffic
        if traffic is None:
            return Measurement.missing(axis, _NO_TRAFFIC)
        return _dropped(traffic) if axis == DROPPED.name else _max_rate(traffic)


METER = TrafficMeter()


def _dropped(traffic: TrafficReading) -> Measurement:
    offered, lost = int(traffic.offered.sum()), traffic.lost
    if not offered:
        return Measurement.missing(DROPPED.name, "no request was due in what was measured")
    each = (traffic.dropped + traffic.unanswered).astype(np.float64)
    # With none lost, the largest share that would show none so often: 1 - tail ** (1 / n).
    none = Interval(0.0, 0.0, 1 - _TAIL ** (1 / offered))
    found = stats.rate_interval(each, traffic.offered.astype(np.float64)) if lost else none
    how = f"{lost} of {offered} requests without an answer{seen(traffic)}"
    return Measurement(DROPPED.name, found.value, found.low, min(1.0, found.high), offered, how)


def _max_rate(traffic: TrafficReading) -> Measurement:
    found = traffic.max_rate
    if found is None:
        return Measurement.missing(MAX_RATE.name, "it takes a search of its own, made where the spec names this axis")
    how = f"bisection, {found.probes} rates tried"
    return Measurement(MAX_RATE.name, found.rate_rps, found.low, found.high, found.probes, how)


def is_overloaded(traffic: TrafficReading | None) -> bool:
    """Whether the queue certainly grows without end; False in other traffic than the server's."""
    return traffic is not None and stats.is_overloaded(traffic.growth, traffic.busy_share, traffic.needed_s)


def endless(axis: str, reading: LatencyReading) -> Measurement:
    """Any latency under overload: infinite, since the longer such traffic goes on the longer a request waits."""
    traffic = reading.traffic
    assert traffic is not None
    offered, answered = int(traffic.offered.sum()), int(traffic.answered.sum())
    how = f"overloaded: {answered} answers to {offered} requests; the queue grows without end"
    n, ever = reading.latency_s.size, Interval(math.inf, math.inf, math.inf)
    return Measurement(axis, math.inf, math.inf, math.inf, n, how, ever, reason=how)


def with_lost(found: Interval, traffic: TrafficReading, q: float | None) -> Interval:
    """``found`` without an upper bound where it rests on requests that never were answered."""
    rests = q is None or found.high >= traffic.lost_from_s
    return replace(found, high=math.inf) if traffic.lost and rests else found


def seen(traffic: TrafficReading) -> str:
    """What else a reader should know of the traffic, to follow a measurement's ``how``."""
    said = f", {traffic.rate_rps:g} requests a second, {traffic.mean_batch:.1f} a run"
    if traffic.needed_s.size and float(traffic.needed_s.mean()) > _NEAR:
        said += (
            f"; at {traffic.needed_s.mean():.0%} of what it can do: such a queue fills over longer times than measured"
        )
    if traffic.lost:
        said += f"; {traffic.lost} without an answer count with the time until then: a lower bound"
    return said


def beside_lost(found: Interval, own: TrafficReading | None, other: TrafficReading | None, q: float | None) -> Interval:
    """A ratio to the baseline's latency, without the bounds that lost requests or an overload take from it.

    What is read of an overloaded baseline is less than its latency, so the ratio is at most what was found.
    """
    # With half as many lost as lie beyond the percentile, an upper bound may be one of them.
    if own is not None and own.lost > (0 if q is None else own.offered.sum() * (1 - q / 100) / 2):
        found = replace(found, high=math.inf)
    if other is not None and (other.lost or is_overloaded(other)):
        found = replace(found, low=0.0)
    return found
