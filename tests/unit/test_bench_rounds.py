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


class Bench:
    """Fake rounds: what was asked, and when it was called decided."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, decided_at: int) -> None:
        self.caps: list[float] = []
        self.seen: list[int] = []
        self.started = 0
        self.decided_at = decided_at
        monkeypatch.setattr(rounds, "measure_latency", self.measure_latency)

    def measure_latency(self, candidate: Any, baseline: Any, *, decided: Any, cap_s: float) -> Any:
        assert candidate.request_s is not None
        self.caps.append(cap_s)
        both = reading(0.5), reading(1.0)
        decided(*both)
        return both

    @contextmanager
    def servers(self) -> Iterator[Any]:
        self.started += 1
        yield FakeServer(), FakeServer()

    def decided(self, mine: LatencyReading, beside: LatencyReading | None) -> bool:
        assert beside is not None
        self.seen.append(mine.processes)
        return mine.processes >= self.decided_at

    def run(self, plan: Plan) -> tuple[LatencyReading, LatencyReading | None]:
        return measure_rounds(self.servers, plan=lambda pair: plan, decided=self.decided)


def test_every_planned_round_is_read_before_anything_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes differ: one pair never stands for all, and all are read for as long."""
    bench = Bench(monkeypatch, decided_at=1)
    mine, beside = bench.run(Plan(3, 30.0, 1.5))

    assert bench.seen == [3]
    assert bench.started == 3
    assert bench.caps == [1.5] * 3
    assert beside is not None
    assert mine.processes == beside.processes == 3


def test_more_rounds_follow_while_nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further processes narrow what further requests don't."""
    bench = Bench(monkeypatch, decided_at=5)

    assert bench.run(Plan(3, 30.0, 1.5))[0].processes == 5
    assert bench.seen == [3, 4, 5]


def test_rounds_end_at_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is undecided then stays so; the planned rounds are taken all the same."""
    bench = Bench(monkeypatch, decided_at=99)

    assert bench.run(Plan(3, 0.0, 1.5))[0].processes == 3
    assert bench.caps == [0.0] * 3
