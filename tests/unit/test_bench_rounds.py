"""Readings of several fresh processes put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from autopilot import stats
from autopilot.bench import rounds
from autopilot.bench.rounds import Plan, joined, measure_rounds
from autopilot.profile import LatencyReading
from tests.unit.search_support import reading


class FakeServer:
    """Warm after warm_up."""

    def __init__(self) -> None:
        self.request_s: float | None = None

    def warm_up(self) -> None:
        self.request_s = 0.001


def test_joined_keeps_every_request_in_blocks_of_its_own() -> None:
    """No two processes share a block, and the blocks' sums stay what they were."""
    parts = [reading(1.0), reading(2.0), reading(3.0)]
    whole = joined(parts)

    assert whole.latency_s.size == sum(p.latency_s.size for p in parts)
    assert whole.processes == 3
    assert whole.block_process is not None
    assert np.unique(whole.block).size == whole.block_wall_s.size == whole.block_process.size == 60
    for number, part in enumerate(parts):
        own = whole.block_process[whole.block] == number
        assert np.array_equal(whole.latency_s[own], part.latency_s)


def test_joined_reading_has_the_pooled_median() -> None:
    """Statistics see one reading of many blocks."""
    whole = joined([reading(1.0), reading(1.1)])

    assert stats.percentile_interval(whole.latency_s, whole.block, 50.0).value == pytest.approx(
        float(np.median(whole.latency_s))
    )


def test_joined_reading_of_one_is_that_one() -> None:
    """One process needs no note of which."""
    one = reading()

    assert joined([one]) is one


def test_every_round_is_read_though_the_first_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes differ: one pair never stands for all, and each gets a part of what is left of the cap."""
    caps: list[float] = []
    seen: list[int] = []
    started: list[tuple[Any, Any]] = []

    def measure_latency(candidate: Any, baseline: Any, *, decided: Any, cap_s: float) -> Any:
        assert candidate.request_s is not None
        caps.append(cap_s)
        both = reading(0.5), reading(1.0)
        decided(*both)
        return both

    @contextmanager
    def servers() -> Iterator[Any]:
        started.append((FakeServer(), FakeServer()))
        yield started[-1]

    def decided(mine: LatencyReading, beside: LatencyReading | None) -> bool:
        assert beside is not None
        seen.append(mine.processes)
        return True

    monkeypatch.setattr(rounds, "measure_latency", measure_latency)
    mine, beside = measure_rounds(servers, plan=lambda pair: Plan(3, 9.0), decided=decided)

    assert seen == [1, 2, 3]
    assert len(started) == 3
    assert mine.processes == 3
    assert beside is not None
    assert beside.processes == 3
    assert caps[0] == pytest.approx(3.0)
    assert caps[2] == pytest.approx(9.0, rel=0.01)
