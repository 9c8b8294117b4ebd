"""The queue in the serving process: which requests run together, and what is left when time is up."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.bench.batching import LAST, RECORD, Batcher, Samples, Window, batcher
from autopilot.errors import Failure, VariantFailed
from autopilot.testing import FailingSession, FakeSession

# Long beside a test, so that nothing here depends on how fast the machine is.
LONG_S = 30.0


def window(number: int = 1, drain_s: float = LONG_S) -> Window:
    """A window that counts from now on and takes no more requests."""
    now = time.monotonic_ns()
    return Window(number, now, now, now + round(drain_s * 1e9))


def put(path: Path, numbers: Iterable[int], *, of_window: int = 1, sent_ns: int | None = None) -> None:
    """Write requests into a queue, as the generator does."""
    pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    for number in numbers:
        os.write(pipe, RECORD.pack(of_window, number, time.monotonic_ns() if sent_ns is None else sent_ns))
    os.close(pipe)


def served(folder: Path, numbers: Iterable[int], **told: Any) -> list[list[int]]:
    """The runs that ``numbers``, all waiting, are served in by one instance."""
    queue = Batcher(lambda i, n: None, folder, **({"batch": 4, "max_delay_s": 0.0, "instances": 1} | told))
    put(queue.path, [*numbers, LAST])
    return [run[0] for run in queue.serve(window())["runs"]]


def test_waiting_requests_fill_batches_in_order(tmp_path: Path) -> None:
    """Full batches first, what is left last."""
    assert served(tmp_path, range(10)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_batch_of_one_runs_every_request_alone(tmp_path: Path) -> None:
    """No batching where the deployment allows none."""
    assert served(tmp_path, range(3), batch=1) == [[0], [1], [2]]


def test_full_batch_waits_for_nothing(tmp_path: Path) -> None:
    """With a delay of half a minute, four requests that fill a batch run at once."""
    assert served(tmp_path, range(4), max_delay_s=LONG_S) == [[0, 1, 2, 3]]


def test_oldest_request_that_waited_long_enough_is_run_without_company(tmp_path: Path) -> None:
    """Its wait counts from when it was sent."""
    queue = Batcher(lambda i, n: None, tmp_path, batch=4, max_delay_s=1.0, instances=1)
    put(queue.path, [0], sent_ns=time.monotonic_ns() - 2_000_000_000)
    done = window()
    thread = threading.Thread(target=lambda: queue.serve(done))
    thread.start()
    while not done.runs:
        time.sleep(0.001)
    put(queue.path, [1, LAST])
    thread.join()

    assert [run[0] for run in done.runs] == [[0], [1]]


def test_instances_run_side_by_side(tmp_path: Path) -> None:
    """Two runs that each wait for the other can only both end when both have begun."""
    meet = threading.Barrier(2, timeout=LONG_S)
    queue = Batcher(lambda i, n: meet.wait(), tmp_path, batch=1, max_delay_s=0.0, instances=2)
    put(queue.path, [0, 1, LAST])
    runs = queue.serve(window())["runs"]

    assert sorted(run[0] for run in runs) == [[0], [1]]


def test_requests_of_a_window_that_was_cut_off_are_not_run(tmp_path: Path) -> None:
    """They wait in the same queue."""
    queue = Batcher(lambda i, n: None, tmp_path, batch=4, max_delay_s=0.0, instances=1)
    put(queue.path, [7, 8], of_window=1)
    put(queue.path, [0, LAST], of_window=2)

    assert [run[0] for run in queue.serve(window(2))["runs"]] == [[0]]


def test_overload_ends_with_the_drain(tmp_path: Path) -> None:
    """What isn't started by then stays unanswered, and the next window finds an empty queue."""
    queue = Batcher(lambda i, n: time.sleep(0.02), tmp_path, batch=1, max_delay_s=0.0, instances=1)
    put(queue.path, range(1000))
    first = queue.serve(window(1, drain_s=0.05))["runs"]
    put(queue.path, [LAST], of_window=2)
    second = queue.serve(window(2))["runs"]

    assert len(first) < 1000
    assert second == []


def test_full_queue_refuses(tmp_path: Path) -> None:
    """Requests beyond what the pipe holds are dropped by the sender, who doesn't wait."""
    queue = Batcher(lambda i, n: None, tmp_path, batch=1, max_delay_s=0.0, instances=1)

    with pytest.raises(BlockingIOError):
        put(queue.path, range(1_000_000))


def test_error_of_a_run_reaches_the_caller(tmp_path: Path) -> None:
    """A thread must not die in silence."""
    session = FailingSession(Failure.CRASH)
    queue = Batcher(lambda i, n: session.run({}), tmp_path, batch=1, max_delay_s=0.0, instances=1)
    put(queue.path, [0, LAST])

    with pytest.raises(VariantFailed, match="fails on purpose"):
        queue.serve(window())


def _in(folder: Path, make: Any) -> Any:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return make()
    finally:
        os.chdir(before)


class Rows:
    """A split of rows ``[0], [1], …`` with a table that is the same for all and as long as the batch."""

    preprocess = postprocess = None
    n = 5

    def feed(self, indices: list[int]) -> dict[str, Any]:
        return {
            "x": np.array(indices, dtype=np.float32)[:, None],
            "table": np.arange(3, dtype=np.float32),
            "zeros": np.zeros((1, len(indices)), dtype=np.float32),
        }


def samples(batch: int) -> Samples:
    rows = Rows()
    return Samples(rows, [rows.feed([i]) for i in range(rows.n)], batch)  # type: ignore[arg-type]


def test_batch_joins_what_follows_the_samples_and_nothing_else() -> None:
    """A table stays a table; an input whose other dimension is the batch has the right one."""
    made = samples(4).request([3, 0, 6])

    assert made["x"].ravel().tolist() == [3.0, 0.0, 1.0]  # the sixth request takes sample 6 mod 5
    assert made["table"].shape == (3,)
    assert made["zeros"].shape == (1, 3)


def test_single_request_is_a_prebuilt_sample() -> None:
    """Nothing is copied for it."""
    single = samples(1)

    assert single.request([2]) is single.request([7])


def test_model_of_whole_batches_gets_whole_batches(tmp_path: Path) -> None:
    """A part of one is filled up with its last request."""
    seen: list[int] = []
    session = FakeSession(lambda feed: seen.append(len(feed["x"])) or [feed["x"]])
    rows = Rows()
    told = {"batch": 4, "max_delay_ms": 0.0, "fixed": True}
    singles = [rows.feed([i]) for i in range(rows.n)]
    queue = _in(tmp_path, lambda: batcher([session], rows, singles, told))  # type: ignore[arg-type]
    put(queue.path, [0, 1, 2, 3, 4, LAST])
    queue.serve(window())

    assert seen == [4, 4]


def recording(instances: int) -> tuple[list[FakeSession], list[list[int]]]:
    """Sessions, and the sizes of batch that each has run."""
    seen: list[list[int]] = [[] for _ in range(instances)]

    def session(of: int) -> FakeSession:
        return FakeSession(lambda feed: seen[of].append(len(feed["x"])) or [feed["x"]])

    return [session(i) for i in range(instances)], seen


@pytest.mark.parametrize("instances", [1, 2])
def test_every_size_of_batch_is_run_in_every_instance_one_size_a_call(tmp_path: Path, instances: int) -> None:
    """A runtime that compiles for each size would do so for seconds while requests wait."""
    sessions, seen = recording(instances)
    rows = Rows()
    told = {"batch": 3, "max_delay_ms": 0.0, "fixed": False}
    singles = [rows.feed([i]) for i in range(rows.n)]
    queue = _in(tmp_path, lambda: batcher(sessions, rows, singles, told, every_size=True))  # type: ignore[arg-type]
    assert (queue.unmet, seen) == (3 * instances, [[]] * instances)
    queue.meet_next()
    assert (queue.unmet, seen[0]) == (3 * instances - 1, [1, 1])  # twice: in the second run a graph may be captured
    while queue.unmet:
        queue.meet_next()

    assert seen == [[1, 1, 2, 2, 3, 3]] * instances


@pytest.mark.parametrize(("fixed", "expected"), [(True, [[3, 3]]), (False, [[1, 1, 2, 2, 3, 3]])])
def test_model_of_whole_batches_meets_one_size(tmp_path: Path, fixed: bool, expected: list[list[int]]) -> None:
    """Nothing else is ever run."""
    sessions, seen = recording(1)
    rows = Rows()
    told = {"batch": 3, "max_delay_ms": 0.0, "fixed": fixed}
    singles = [rows.feed([i]) for i in range(rows.n)]
    queue = _in(tmp_path, lambda: batcher(sessions, rows, singles, told, every_size=True))  # type: ignore[arg-type]
    while queue.unmet:
        queue.meet_next()

    assert seen == expected


def test_size_with_other_answers_than_the_size_before_is_refused(tmp_path: Path) -> None:
    """A runtime that compiles for each size may do so wrongly for some, between those that are scored."""
    session = FakeSession(lambda feed: [feed["x"] * (1e10 if len(feed["x"]) == 3 else 1)])
    rows = Rows()
    told = {"batch": 4, "max_delay_ms": 0.0, "fixed": False}
    singles = [rows.feed([i]) for i in range(rows.n)]
    queue = _in(tmp_path, lambda: batcher([session], rows, singles, told, every_size=True))  # type: ignore[arg-type]
    queue.meet_next()
    queue.meet_next()

    with pytest.raises(VariantFailed, match="runs of 3 samples isn't what runs of 2 give") as failed:
        queue.meet_next()

    assert failed.value.failure is Failure.WRONG_NUMERICS


def test_no_answer_is_held_while_a_size_is_run_again(tmp_path: Path) -> None:
    """Nor is one in serving: what is held beside it would be told as the model's memory."""
    made: list[weakref.ref[np.ndarray]] = []
    held: list[int] = []

    def run(instance: int, numbers: list[int]) -> list[np.ndarray]:
        held.append(sum(ref() is not None for ref in made))
        outputs = [np.zeros(len(numbers))]
        made.append(weakref.ref(outputs[0]))
        return outputs

    queue = Batcher(run, tmp_path, batch=2, max_delay_s=0.0, instances=1, unmet=[(0, 1), (0, 2)])
    while queue.unmet:
        queue.meet_next()

    assert held == [0, 0, 0, 0]


def test_size_that_fails_is_the_callers_error(tmp_path: Path) -> None:
    """It is run in another thread, and must not die there in silence."""
    rows = Rows()
    told = {"batch": 2, "max_delay_ms": 0.0, "fixed": False}
    sessions, singles = [FailingSession(Failure.OOM)], [rows.feed([0])]
    queue = _in(tmp_path, lambda: batcher(sessions, rows, singles, told, every_size=True))  # type: ignore[arg-type]

    with pytest.raises(VariantFailed, match="fails on purpose"):
        queue.meet_next()
