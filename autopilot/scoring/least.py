"""What a number of samples can't show: the loss that stays possible where not one answer changed."""

from __future__ import annotations

import math

from autopilot.contracts import Metric
from autopilot.scoring.intervals import LEVEL, Z, unseen
from autopilot.scoring.kinds import FunctionMetric

# One answer a sample, right or wrong: Tango's interval without any change reaches z^2 / (n + z^2), some 3.8 / n.
_RIGHT_OR_WRONG = frozenset({"accuracy", "top5_accuracy", "sequence_accuracy", "ctc_sequence_accuracy", "agreement"})
# Scores of counted decisions: no resample shows a change, so that their interval is that of what n samples may miss.
_COUNTED = frozenset(
    {"balanced_accuracy", "f1_binary", "f1_micro", "f1_macro", "token_accuracy", "character_error_rate"}
)


def least_drop(metric: Metric, n: int) -> float:
    """The least loss that ``n`` samples rule out, though every decision is the baseline's; outputs differ a little.

    0 for metrics that see the slightest change of an output (``mae``, ``roc_auc``): their intervals become as narrow
    as the change is small.

    >>> from autopilot.plugins import metrics
    >>> round(least_drop(metrics()["accuracy"], 300), 4)
    0.0126
    """
    if isinstance(metric, FunctionMetric):
        return 0.0
    if metric.name in _RIGHT_OR_WRONG:
        return Z * Z / (n + Z * Z)
    return unseen(n) if metric.name in _COUNTED else 0.0


def samples_for(metric: Metric, drop: float) -> int:
    """How many samples it takes at the least to show a loss of at most ``drop`` (above 0, below 1).

    >>> from autopilot.plugins import metrics
    >>> samples_for(metrics()["accuracy"], 0.01)
    381
    """
    if not least_drop(metric, 1):
        return 1
    if metric.name in _RIGHT_OR_WRONG:
        return math.ceil(Z * Z * (1 / drop - 1))
    return math.ceil(math.log(0.5 - LEVEL / 2) / math.log1p(-drop))
