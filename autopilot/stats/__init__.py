"""Percentiles, means, rates and ratios of timed requests, each with a confidence interval. Pure numpy.

Requests that ran back to back share the machine's mood, so blocks of requests are the unit, not
single requests. Intervals are two-sided; ``level`` 0.95 leaves 2.5% on each side. A bound that the
data can't give is 0 or infinity, never a guess.

Methods: percentile bounds are order statistics (the binomial argument behind MLPerf LoadGen's early
stopping) for the effective number of independent requests; means and rates are ratio estimators over
blocks with a long-run variance (Newey and West 1987); ratios of percentiles use the paired influence
of blocks where the data carry it, else combine two intervals by MOVER (Zou and Donner 2008).
"""

from __future__ import annotations

from autopilot.stats.drift import carried, change_within, has_moved
from autopilot.stats.excess import excess_interval
from autopilot.stats.overload import is_overloaded
from autopilot.stats.percentiles import effective_size, enough_for, order_ranks, percentile_interval
from autopilot.stats.rates import mean_interval, rate_interval, rate_ratio_interval
from autopilot.stats.ratios import ratio_interval
from autopilot.stats.sequential import crossing, early_stretch, level_at_looks, look_sizes
from autopilot.stats.spread import process_spread, ratio_over_processes, widened
from autopilot.stats.stages import stage_shares
from autopilot.stats.student import t_quantile

__all__ = [
    "carried",
    "change_within",
    "crossing",
    "early_stretch",
    "effective_size",
    "enough_for",
    "excess_interval",
    "has_moved",
    "is_overloaded",
    "level_at_looks",
    "look_sizes",
    "mean_interval",
    "order_ranks",
    "percentile_interval",
    "process_spread",
    "rate_interval",
    "rate_ratio_interval",
    "ratio_interval",
    "ratio_over_processes",
    "stage_shares",
    "t_quantile",
    "widened",
]
