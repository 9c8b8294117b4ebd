"""cost_per_million: price of a million samples, from the target's price an hour and the throughput."""

from __future__ import annotations

from autopilot.contracts import Axis, Stage
from autopilot.meters.throughput import METER as THROUGHPUT
from autopilot.profile import Interval, Measurement, Profile

COST = Axis("cost_per_million", False, Stage.LATENCY, "price of a million samples, in the currency of price_per_hour")
_SAMPLES = 1e6
_HOUR_S = 3600.0


class CostMeter:
    """Reads ``Profile.price_per_hour`` and what the throughput meter reads: a machine kept busy."""

    name = "cost"
    axes: tuple[Axis, ...] = (COST,)

    def axis(self, name: str) -> Axis | None:
        return COST if name == COST.name else None

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        if profile.price_per_hour is None:
            return Measurement.missing(axis, "the spec gives no target.price_per_hour")
        rate = THROUGHPUT.summarise(profile, "throughput_rps")
        if rate.value is None or rate.low is None or rate.high is None:
            return Measurement.missing(axis, rate.reason)
        if rate.value == 0:
            return Measurement.missing(axis, "no request was answered in the time that was measured")
        dear = profile.price_per_hour * _SAMPLES / _HOUR_S
        high = dear / rate.low if rate.low > 0 else float("inf")
        how = f"{profile.price_per_hour:g} an hour, fully used; {rate.how}"
        return Measurement(axis, dear / rate.value, dear / rate.high, high, rate.n, how, _inverse(rate.ratio))


def _inverse(ratio: Interval | None) -> Interval | None:
    if ratio is None or ratio.value <= 0:
        return None
    high = 1 / ratio.low if ratio.low > 0 else float("inf")
    return Interval(1 / ratio.value, 1 / ratio.high, high)


METER = CostMeter()
