"""What share of a request each stage takes, with intervals over blocks."""

from __future__ import annotations

import numpy as np

from autopilot.profile import Floats, Interval, Ints, LatencyReading, StageShare, StageShares
from autopilot.stats.blocks import log_interval, per_block, relative_influence

_LEVEL = 0.95


def stage_shares(reading: LatencyReading) -> StageShares | None:
    """Mean seconds and share of preprocess, inference and postprocess; None where there are no hooks.

    What the hooks don't take of a request is inference, so that the three add up to the mean latency.
    """
    before, after = reading.preprocess_s, reading.postprocess_s
    if before is None and after is None:
        return None
    nothing = np.zeros_like(reading.latency_s)
    before = nothing if before is None else before
    after = nothing if after is None else after
    parts = (before, reading.latency_s - before - after, after)
    return StageShares(*(_share(part, reading.latency_s, reading.block) for part in parts))


def _share(part: Floats, latency_s: Floats, block: Ints) -> StageShare:
    seconds, whole = float(part.mean()), float(latency_s.mean())
    share = seconds / whole if whole else 0.0
    return StageShare(seconds, _interval(share, part, latency_s, block))


def _interval(share: float, part: Floats, latency_s: Floats, block: Ints) -> Interval:
    """Bounds of a share: blocks are the unit; with one block nothing is known but that it is a share."""
    if share <= 0.0:
        return Interval(0.0, 0.0, 0.0)
    _, amount = per_block(part, block)
    _, per = per_block(latency_s, block)
    if amount.size < 2:
        return Interval(share, 0.0, 1.0)
    found = log_interval(share, relative_influence(amount, per), _LEVEL)
    return Interval(share, found.low, min(1.0, found.high))
