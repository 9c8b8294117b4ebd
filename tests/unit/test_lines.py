"""Lines of a child's answers: whole ones, one at a time, waited for no longer than is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

import pytest

from autopilot.bench.lines import LineReader

Pipe = tuple[IO[bytes], IO[bytes]]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Where to read and where to write."""
    ends = os.pipe()
    with os.fdopen(ends[0], "rb", 0) as read, os.fdopen(ends[1], "wb", 0) as write:
        yield read, write


# 1000 hours, as a spec may say to have a step ended by nothing: more than poll takes.
@pytest.mark.parametrize("timeout_s", [10.0, 3.6e6, float("inf")])
def test_lines_come_one_at_a_time_however_they_were_written(pipe: Pipe, timeout_s: float) -> None:
    """Several in one piece, and one in several."""
    read, write = pipe
    lines = LineReader(read)
    write.write(b"one\ntwo\nth")
    found = [lines.read(timeout_s), lines.read(timeout_s)]
    write.write(b"ree\n")

    assert [*found, lines.read(timeout_s)] == [b"one", b"two", b"three"]


def test_half_a_line_is_none(pipe: Pipe) -> None:
    """Neither in time nor at the end; what came of it isn't lost for who asks again."""
    read, write = pipe
    lines = LineReader(read)
    write.write(b"hal")
    with pytest.raises(TimeoutError):
        lines.read(0.01)
    write.write(b"f\nrest")

    assert lines.read(10.0) == b"half"
    write.close()
    with pytest.raises(EOFError):
        lines.read(10.0)
