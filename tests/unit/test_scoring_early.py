"""Early rejection on a random prefix: it holds its error and compares exactly at the end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.contracts import Metric
from autopilot.plugins import metrics
from autopilot.scoring import can_reject
from autopilot.scoring.early import fewest, lowest_drop
from tests.scoring_support import classifier


def test_fewest_is_the_exact_hypergeometric_limit():
    """The smallest count of marked samples that is still plausible, against plain enumeration."""
    seen, m, n, error = 6, 20, 60, 0.01

    def tail(marked):
        ways = sum(math.comb(marked, x) * math.comb(n - marked, m - x) for x in range(seen, m + 1))
        return ways / math.comb(n, m)

    expected = next(k for k in range(seen, n + 1) if tail(k) > error)
    assert fewest(seen, m, n, error) == expected


@given(
    losses=st.integers(0, 60),
    gains=st.integers(0, 60),
    m=st.integers(1, 199),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=300, deadline=None)
def test_lowest_drop_stays_below_the_true_drop(losses, gains, m, seed):
    """At an error of 1e-9 no random prefix of any population gives a limit above the truth."""
    population = np.array([1.0] * losses + [-1.0] * gains + [0.0] * (200 - losses - gains))
    loss = np.random.default_rng(seed).permutation(population)

    assert lowest_drop(loss[:m], 200, span=1.0, error=1e-9) <= population.mean() + 1e-12


def test_lowest_drop_error_rate_holds_at_a_loose_level():
    """At 5% it is above the truth in at most 5% of prefixes: for counts and for continuous losses."""
    rounds = 600
    counts = np.array([1.0] * 40 + [-1.0] * 10 + [0.0] * 350)
    shares = np.random.default_rng(0).beta(0.3, 3.0, 400)
    for population in (counts, shares):
        wrong = sum(
            lowest_drop(np.random.default_rng(s).permutation(population)[:120], 400, span=1.0, error=0.05)
            > population.mean()
            for s in range(rounds)
        )
        assert wrong / rounds <= 0.05


def test_can_reject_a_collapsed_variant_on_a_small_prefix():
    """128 of 5,000 samples are enough to see that accuracy fell by half."""
    base, labels = classifier(128, 0.93)
    bad, _ = classifier(128, 0.4)

    assert can_reject(
        metrics()["accuracy"],
        {},
        outputs_prefix=bad,
        baseline_prefix=base,
        labels_prefix=labels,
        n_total=5000,
        bound=0.01,
    )


def test_can_reject_never_when_the_true_drop_is_within_the_bound():
    """300 random prefixes of a population whose drop is exactly at the bound: no rejection (0.1% allowed)."""
    n, bound = 1000, 0.02
    base = np.zeros((n, 2), dtype=np.float32)
    labels = np.zeros(n, dtype=int)
    base[:, 0] = 1.0
    mine = base.copy()
    mine[:20] = [0.0, 1.0]  # 20 losses of 1000
    for seed in range(300):
        order = np.random.default_rng(seed).permutation(n)[: 100 + seed]
        assert not can_reject(
            metrics()["accuracy"],
            {},
            outputs_prefix=mine[order],
            baseline_prefix=base[order],
            labels_prefix=labels[order],
            n_total=n,
            bound=bound,
        )


def test_can_reject_compares_exactly_when_the_prefix_is_everything():
    """With all samples seen there is nothing left to chance."""
    base, labels = classifier(100, 1.0)
    mine = base.copy()
    mine[:3] = np.roll(mine[:3], 1, axis=1)
    told = {"outputs_prefix": mine, "baseline_prefix": base, "labels_prefix": labels, "n_total": 100}

    assert can_reject(metrics()["accuracy"], {}, **told, bound=0.029)
    assert not can_reject(metrics()["accuracy"], {}, **told, bound=0.03)


@pytest.mark.parametrize("name", ["f1_macro", "log_loss", "token_accuracy"])
def test_can_reject_never_without_bounded_values_a_sample(name):
    """Where no bound holds, nothing is rejected early."""
    base, labels = classifier(200, 0.95)
    metric = metrics()[name]
    assert isinstance(metric, Metric)

    assert not can_reject(
        metric, {}, outputs_prefix=-base, baseline_prefix=base, labels_prefix=labels, n_total=400, bound=0.0
    )
