"""quality, quality_drop: the metric's score and its loss against the baseline."""

from __future__ import annotations

import math

from autopilot.contracts import Axis, Metric, Stage
from autopilot.profile import Interval, Measurement, Profile, QualityReading

QUALITY = Axis("quality", True, Stage.QUALITY, "the metric's score")
DROP = Axis("quality_drop", False, Stage.QUALITY, "loss in the metric against the baseline, in its bad direction")


def quality_axis(metric: Metric) -> Axis:
    """The quality axis in the metric's own direction.

    Limits are parsed against an Axis, and the meter can't know the metric: whoever builds the
    vocabulary for a spec takes this one, so that a bare limit on ``mae`` is an upper one.
    """
    return Axis(QUALITY.name, metric.higher_is_better, QUALITY.stage, f"{metric.name}: {metric.summary}")


def _ratio(reading: QualityReading) -> Interval | None:
    """Score / baseline from the paired drop; None where the baseline is not positive."""
    base, drop = reading.baseline, reading.drop
    if base <= 0:
        return None
    value = reading.score.value / base
    low, high = drop.low / base, drop.high / base
    if drop.value == 0:  # no direction to be read from equal scores: the wider side counts for both
        half = max(abs(low), abs(high))
        return Interval(value, value - half, value + half)
    falls = math.isclose(reading.score.value, base - drop.value, rel_tol=1e-9, abs_tol=1e-12)
    return Interval(value, 1 - high, 1 - low) if falls else Interval(value, 1 + low, 1 + high)


class QualityMeter:
    """Reads ``Profile.quality``."""

    name = "quality"
    axes: tuple[Axis, ...] = (QUALITY, DROP)

    def axis(self, name: str) -> Axis | None:
        return next((a for a in self.axes if a.name == name), None)

    def summarise(self, profile: Profile, axis: str) -> Measurement:
        reading = profile.quality
        if reading is None:
            return Measurement.missing(axis, "the outputs were not scored: the trial ended before that")
        how = f"{reading.metric} on {reading.split}, {reading.how}"
        if axis == QUALITY.name:
            s = reading.score
            return Measurement(axis, s.value, s.low, s.high, reading.n, how, _ratio(reading))
        d = reading.drop
        return Measurement(axis, d.value, d.low, d.high, reading.n, how)


METER = QualityMeter()
