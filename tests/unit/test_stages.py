"""Stages of a request: shares that add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.profile import LatencyReading, StageShares
from autopilot.stats import stage_shares


def reading(before: list[float], inside: list[float], after: list[float], blocks: int = 4) -> LatencyReading:
    """Requests of which every stage is known, in blocks of equal size."""
    parts = [np.resize(np.array(values, dtype=np.float64), 8 * blocks) for values in (before, inside, after)]
    block = np.repeat(np.arange(blocks, dtype=np.int32), 8)
    wall = np.bincount(block, weights=sum(parts))
    return LatencyReading(sum(parts), block, wall, wall, preprocess_s=parts[0], postprocess_s=parts[2])


seconds = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=32)


@given(seconds, seconds, seconds, st.integers(1, 6))
def test_stages_sum_to_the_latency(before: list[float], inside: list[float], after: list[float], blocks: int) -> None:
    """Whatever the hooks don't take is the model's, and shares lie inside their bounds."""
    found = reading(before, inside, after, blocks)
    stages = stage_shares(found)

    assert stages is not None
    assert stages.total_s == pytest.approx(found.latency_s.mean())
    parts = (stages.preprocess, stages.inference, stages.postprocess)
    assert sum(part.share.value for part in parts) == pytest.approx(1.0)
    for part in parts:
        assert 0.0 <= part.share.low <= part.share.value + 1e-12
        assert part.share.value <= part.share.high + 1e-12
        assert part.share.high <= 1.0 + 1e-12


def test_without_hooks_there_are_no_stages() -> None:
    """A request is the model then."""
    plain = LatencyReading(np.ones(4), np.zeros(4, np.int32), np.array([4.0]), np.array([4.0]))

    assert stage_shares(plain) is None


def test_stage_that_takes_no_time_has_no_share() -> None:
    """No division by nothing."""
    stages = stage_shares(reading([0.0], [0.2], [0.3]))

    assert stages is not None
    assert (stages.preprocess.seconds, stages.preprocess.share.high) == (0.0, 0.0)
    assert stages.postprocess.share.value == pytest.approx(0.6)


def test_stages_survive_json() -> None:
    """As they stand in result.json."""
    stages = stage_shares(reading([0.1, 0.2], [0.3, 0.5], [0.1]))

    assert stages is not None
    assert StageShares.from_json(json.loads(json.dumps(stages.to_json()))) == stages
