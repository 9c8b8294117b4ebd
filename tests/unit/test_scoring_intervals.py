"""Intervals: coverage of the truth, exact where it can be summed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.scoring.intervals import mean_interval, t_quantile, tango, unseen, wilson


def coverage(draw, interval_of, truth, rounds=1500):
    """How often the truth lies below and above the interval."""
    below = above = 0
    for seed in range(rounds):
        found = interval_of(draw(np.random.default_rng(seed)))
        below += truth < found.low
        above += truth > found.high
    return below / rounds, above / rounds


def exact_misses(n, loss, gain):
    """Probabilities that Tango's interval lies wholly above and wholly below the true drop: every outcome counted."""
    above_truth = below_truth = 0.0
    widest = [int(n * p + 8 * math.sqrt(n * p) + 12) if p else 0 for p in (loss, gain)]
    for x in range(widest[0] + 1):
        for y in range(min(widest[1], n - x) + 1):
            log = math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(y + 1) - math.lgamma(n - x - y + 1)
            log += x * math.log(loss) + (y * math.log(gain) if gain else 0.0) + (n - x - y) * math.log(1 - loss - gain)
            if log > -14:
                found = tango(x, y, n)
                above_truth += math.exp(log) * (found.low > loss - gain + 1e-12)
                below_truth += math.exp(log) * (found.high < loss - gain - 1e-12)
    return above_truth, below_truth


@pytest.mark.parametrize(
    ("n", "loss", "gain"),
    [(60, 0.02, 0.02), (200, 0.01, 0.0), (200, 0.05, 0.02), (400, 0.01, 0.0), (1000, 0.004, 0.002)],
)
def test_tango_interval_covers_the_true_drop(n, loss, gain):
    """The side that lets a variant in misses in about 2.5% of data sets, the other in 5% at its worst: exact sums."""
    above_truth, below_truth = exact_misses(n, loss, gain)

    assert below_truth <= 0.0275
    assert above_truth <= 0.055


def test_tango_inverts_the_score_test():
    """At either bound the constrained score statistic is the normal quantile: Tango's equation, solved by search."""
    losses, gains, n = 12, 5, 300
    found = tango(losses, gains, n)

    for bound in (found.low, found.high):
        # The constrained likelihood, maximised on a grid over the probability of a gain.
        q = np.linspace(max(0.0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9, 400_001)
        likelihood = losses * np.log(q + bound) + gains * np.log(q) + (n - losses - gains) * np.log(1 - 2 * q - bound)
        best = q[likelihood.argmax()]
        z = (losses - gains - n * bound) / math.sqrt(n * (2 * best + bound - bound**2))
        assert abs(z) == pytest.approx(1.96, abs=2e-3)


@given(st.integers(1, 3000), st.data())
def test_tango_contains_its_estimate_and_mirrors(n, data):
    """The estimate lies strictly inside, and swapping the models flips the sign."""
    losses = data.draw(st.integers(0, n))
    gains = data.draw(st.integers(0, n - losses))

    found, mirrored = tango(losses, gains, n), tango(gains, losses, n)

    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert mirrored.low == pytest.approx(-found.high, abs=1e-9)


def test_wilson_covers_a_rare_event():
    """The interval of a proportion keeps about 95% at p = 0.03."""
    below, above = coverage(lambda rng: int(rng.binomial(150, 0.03)), lambda k: wilson(k, 150), 0.03)

    assert below + above <= 0.07


@pytest.mark.parametrize(("n", "skewed"), [(40, False), (200, True)])
def test_mean_interval_covers_the_mean(n, skewed):
    """Normal and strongly skewed differences: at most 4% missed on either side, 5% on the skewed one's."""
    draw = (lambda rng: rng.exponential(1.0, n)) if skewed else (lambda rng: rng.normal(1.0, 1.0, n))

    below, above = coverage(draw, lambda x: mean_interval(x, np.random.default_rng(0)), 1.0, rounds=250)

    assert below <= 0.045
    assert above <= 0.06


def test_t_quantile_equals_the_table():
    """97.5% quantiles of Student's t."""
    assert [round(t_quantile(v), 3) for v in (29, 60, 1000)] == [2.045, 2.0, 1.962]


def test_unseen_is_the_zero_count_limit():
    """With that share, n samples miss it with probability 2.5%."""
    assert (1 - unseen(100)) ** 100 == pytest.approx(0.025)
