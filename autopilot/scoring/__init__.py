"""Scoring: the metric of a spec, paired intervals on the drop, early rejection on a subset."""

from __future__ import annotations

from autopilot.scoring.early import can_reject
from autopilot.scoring.kinds import BoundedMetric, FunctionMetric, SumMetric, resolve_metric, scored_output
from autopilot.scoring.least import least_drop, samples_for
from autopilot.scoring.quality import check_outputs, score
from autopilot.scoring.raw import recompute

__all__ = [
    "BoundedMetric",
    "FunctionMetric",
    "SumMetric",
    "can_reject",
    "check_outputs",
    "least_drop",
    "recompute",
    "resolve_metric",
    "samples_for",
    "score",
    "scored_output",
]
