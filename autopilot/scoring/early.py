"""Rejecting a variant on a random prefix of the samples, with a bound that holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from autopilot.contracts import Metric
from autopilot.profile import Floats
from autopilot.scoring.kinds import BoundedMetric

Array = npt.NDArray[Any]

ERROR = 0.001  # of all looks of one trial together


def can_reject(
    metric: Metric,
    options: Mapping[str, Any],
    *,
    outputs_prefix: Array,
    baseline_prefix: Array,
    labels_prefix: Array | None,
    n_total: int,
    bound: float,
    looks: int = 8,
) -> bool:
    """True when the drop on all ``n_total`` samples exceeds ``bound``, at an error of at most 0.1%.

    The prefix must be a random subset of the ``n_total`` samples (splits are stored shuffled). The
    error is shared by up to ``looks`` calls for one variant (union bound). Right-or-wrong metrics
    use exact hypergeometric limits on the numbers of losses and gains; other bounded means the
    empirical Bernstein-Serfling and Hoeffding-Serfling inequalities for sampling without
    replacement (Bardenet & Maillard 2015, Bernoulli 21:1361). Metrics that are no mean of bounded
    values a sample are never rejected early.
    """
    reference = baseline_prefix if metric.against_baseline else labels_prefix
    if not isinstance(metric, BoundedMetric) or metric.per_sample is None or reference is None:
        return False
    if len(outputs_prefix) == 0 or outputs_prefix.shape != baseline_prefix.shape:
        return False
    told = {**metric.options, **options}
    mine = metric.per_sample(outputs_prefix, reference, told)
    theirs = metric.per_sample(baseline_prefix, reference, told)
    loss = theirs - mine if metric.higher_is_better else mine - theirs
    if not np.isfinite(loss).all():
        return False  # a failure of its own kind, which score() names
    span = metric.sample_range[1] - metric.sample_range[0]
    return lowest_drop(loss, n_total, span=span, error=ERROR / looks) > bound


def lowest_drop(loss: Floats, n_total: int, *, span: float, error: float) -> float:
    """A lower limit of the mean loss over all ``n_total`` samples, wrong with probability <= ``error``.

    ``loss``: float64, shape (m,), of a random subset without replacement, within -span .. span.
    """
    m = len(loss)
    if m >= n_total:
        return float(loss.mean())
    # Whatever comes, the rest can't undo more than this: true with certainty.
    certain = (float(loss.sum()) - span * (n_total - m)) / n_total
    # Each inequality gets half of the error, so that the better of them may be taken.
    serfling = _serfling(loss, n_total, 2 * span, error / 2)
    return max(certain, serfling, span * _counted(loss / span, n_total, error / 2))


def _counted(loss: Floats, n_total: int, error: float) -> float:
    """A lower limit from counts: full losses count 1, any gain counts as a full one; exact for right-or-wrong."""
    m = len(loss)
    losses = fewest(int((loss >= 1).sum()), m, n_total, error / 2)
    gains = n_total - fewest(m - int((loss < 0).sum()), m, n_total, error / 2)
    return (losses - gains) / n_total


def _serfling(loss: Floats, n_total: int, width: float, error: float) -> float:
    m, mean = len(loss), float(loss.mean())
    left = min(1 - (m - 1) / n_total, (1 - m / n_total) * (1 + 1 / m))
    hoeffding = width * math.sqrt(left * math.log(2 / error) / (2 * m))
    log = math.log(10 / error)  # the theorem's 5 / error, at half of the error
    kappa = 7 / 3 + 3 / math.sqrt(2)
    bernstein = float(loss.std()) * math.sqrt(2 * left * log / m) + kappa * width * log / m
    return mean - min(hoeffding, bernstein)


def fewest(seen: int, m: int, n_total: int, error: float) -> int:
    """The smallest count K of marked samples among ``n_total`` with P(at least ``seen`` in ``m`` draws | K) > error.

    >>> fewest(5, 10, 10, 0.01)
    5
    """
    low, high = seen, n_total - (m - seen)
    while low < high:
        middle = (low + high) // 2
        if _tail(seen, middle, m, n_total) > error:
            high = middle
        else:
            low = middle + 1
    return low


def _tail(seen: int, marked: int, m: int, n_total: int) -> float:
    """P(X >= seen) for X hypergeometric: ``m`` draws from ``n_total`` of which ``marked`` are marked."""
    x = np.arange(max(seen, m - (n_total - marked)), min(m, marked) + 1)
    if len(x) == 0:
        return 0.0
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n_total + 1)))])

    def choose(n: Any, k: Any) -> Any:
        return logs[n] - logs[k] - logs[n - k]

    terms = choose(marked, x) + choose(n_total - marked, m - x) - choose(n_total, m)
    return float(np.exp(terms).sum())
