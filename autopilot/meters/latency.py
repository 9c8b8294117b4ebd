"""latency_mean_ms, latency_p50_ms … of one request, host arrays in to host arrays out.

Any percentile is an axis (``latency_p97.5_ms``); the listed ones are those people ask for.
"""

from __future__ import annotations

import math
import re

from autopilot import stats
from autopilot.contracts import Axis, Stage
from autopilot.meters import _machine
from autopilot.meters.traffic import beside_lost, endless, is_overloaded, seen, with_lost
from autopilot.profile import Interval, Measurement, Profile

_NAME = re.compile(r"latency_(?:p(?P<q>\d{1,2}(?:\.\d{1,3})?)|mean)_ms")
_MS = 1e3


def _axis(name: str, what: str) -> Axis:
    return Axis(name, False, Stage.LATENCY, f"{what} of one request's latency, in milliseconds")


def percentile_of(name: str) -> float | None:
    """The percentile that an axis name asks for; None for the mean.

    Raises:
        ValueError: it is no latency axis, or its percentile is not between 0 and 100.

    >>> percentile_of("latency_p97.5_ms")
    97.5
    """
    match = _NAME.fullmatch(name)
    if match is None or (match["q"] is not None and float(match["q"]) <= 0):
        raise ValueError(f"{name!r} is no latency axis; write latency_p99_ms or latency_mean_ms")
    return None if match["q"] is None else float(match["q"])


class LatencyMeter:
    """Reads ``Profile.latency``, and for the ratio ``Profile.baseline_latency`` beside it."""

    name = "latency"
    axes: tuple[Axis, ...] = (
        _axis("latency_p50_ms", "the median"),
        _axis("latency_p90_ms", "the 90th percentile"),
        _axis("latency_p95_ms", "the 95th percentile"),
        _axis("latency_p99_ms", "the 99th percentile"),
        _axis("latency_mean_ms", "the mean"),
    )

    def axis(self, name: str) -> Axis | None:
        """The listed axis, or one made for another percentile; None when ``name`` is not latency's."""
        listed = next((a for a in self.axes if a.name == name), None)
        if listed is not None:
            return listed
        try:
            q = percentile_of(name)
        except ValueError:
            return None
        return _axis(name, f"percentile {q:g}")

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        reading = profile.latency
        if reading is None or reading.latency_s.size == 0:
            return Measurement.missing(axis, "latency was not measured: the trial ended before that")
        q = percentile_of(axis)
        if is_overloaded(reading.traffic):
            return endless(axis, reading)
        if q is None:
            found = stats.mean_interval(reading.latency_s, reading.block)
        else:
            found = stats.percentile_interval(reading.latency_s, reading.block, q)
        n, blocks = reading.latency_s.size, reading.block_wall_s.size
        how = f"{n} requests of {reading.samples_per_request} in {blocks} blocks"
        if reading.traffic is not None:
            found, how = with_lost(found, reading.traffic, q), how + seen(reading.traffic)
        found = _machine.absolute(found, profile, reading, _machine.Kind.LATENCY)
        if math.isinf(found.high) and q is not None:
            how += f"; an upper bound needs {stats.enough_for(q)} independent requests"
        ratio = self._ratio(profile, q)
        if ratio is not None:
            how += ", interleaved with the baseline's"
        how += _machine.said(profile)
        return Measurement(axis, found.value * _MS, found.low * _MS, found.high * _MS, n, how, ratio)

    @staticmethod
    def _ratio(profile: Profile, q: float | None) -> Interval | None:
        a, b = profile.latency, profile.baseline_latency
        if a is None or b is None or b.latency_s.size == 0:
            return None
        found = stats.ratio_interval(a.latency_s, a.block, b.latency_s, b.block, q=q)
        return _machine.ratio(beside_lost(found, a.traffic, b.traffic, q), profile, a, _machine.Kind.LATENCY)


METER = LatencyMeter()
