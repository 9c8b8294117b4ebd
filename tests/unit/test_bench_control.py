"""The A/A control: how far processes of one model differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autopilot.bench.control import summarise
from autopilot.profile import Control
from tests.unit.search_support import reading


def test_control_finds_the_spread_between_processes() -> None:
    """Of processes whose medians scatter by 1%, a ratio of two scatters by 1.4%."""
    rng = np.random.default_rng(3)
    live = math.exp(rng.normal(0, 0.01))
    pairs = [(reading(math.exp(rng.normal(0, 0.01))), reading(live)) for _ in range(400)]

    found = summarise(pairs)

    assert found.spread == pytest.approx(0.01 * math.sqrt(2), rel=0.1)
    assert found.pairs == 400


def test_control_of_equal_processes_is_nothing() -> None:
    """The same figures everywhere."""
    found = summarise([(reading(), reading())] * 4)

    assert found == Control(0.0, 4, 0.0, 0.0)


def test_control_names_the_largest_difference() -> None:
    """Whichever of the two was slower."""
    found = summarise([(reading(1.0), reading(1.0)), (reading(1.0), reading(1.1))])

    assert found.p50_percent == pytest.approx(10.0)
    assert Control.from_json(found.to_json()) == found
