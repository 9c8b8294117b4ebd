"""Parts of pruning and training that need no torch: how much of each group, and the learning rate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.torch_model.prune import LARGEST_RATIO, Plan, _ratios
from autopilot.torch_model.train import rate

DIVERGENCES = st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 10), min_size=1, max_size=8)


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic"])
def test_other_scopes_take_the_same_share_of_every_group(scope: str) -> None:
    """What differs between groups is then the pruner's ranking."""
    assert _ratios({"a": 0.1, "b": 9.0}, Plan(0.3, "taylor", scope, 8)) == {"a": 0.3, "b": 0.3}


@given(DIVERGENCES, st.floats(0.05, 0.8))
def test_sensitive_groups_keep_more_and_the_mean_stays(divergences: dict[str, float], ratio: float) -> None:
    """Shares fall with the divergence, stay below the cap, and average to what was asked."""
    found = _ratios(divergences, Plan(ratio, "taylor", "sensitive", 8))

    names = sorted(divergences, key=lambda n: divergences[n])
    shares = [found[n] for n in names]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(shares))
    assert max(shares) <= LARGEST_RATIO
    assert np.mean(shares) == pytest.approx(ratio, abs=0.02)


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    """A short warm-up, then a cosine; beyond the end it stays at zero."""
    rates = [rate(p) for p in np.linspace(0, 1, 101)]

    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0)
    assert rate(1.5) == pytest.approx(0.0)
    peak = rates.index(max(rates))
    assert peak <= 6
    assert all(a >= b for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
