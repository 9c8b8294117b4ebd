"""Scheduled requests in the serving child: a queue, batches made of what waits, several instances.

The queue is a named pipe that the generator writes records into: while all instances are busy, requests wait
in the kernel, and no thread of this process does anything. A free instance's thread takes the next turn at
the pipe: it takes a full batch at once; else it waits until the oldest request that it took has waited
``max_delay``, then runs what it has (the meaning of Triton's ``max_queue_delay``; 0 takes what is there).
Only the standard library and numpy are loaded here.
"""

from __future__ import annotations

import gc
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.bench.agreement import FirstRuns

if TYPE_CHECKING:
    from autopilot.contracts import Array, Session
    from autopilot.data import Split

# One request: window, number in it, when it was sent (CLOCK_MONOTONIC, ns). Its size divides a memory page,
# so that a pipe's pages are filled to the end; a pipe of 64 KiB holds 4,096 waiting requests.
RECORD = struct.Struct("<IIq")
# The number of the record that ends a window.
LAST = 0xFFFFFFFF
QUEUE = "requests.fifo"


class Samples:
    """Prebuilt single samples, and the requests that several of them make; LoadGen's sample library.

    Arrays that follow the sample dimension are joined when a batch is run, which is part of its service;
    those that are the same for all samples are kept once a batch size.
    """

    def __init__(self, split: Split, singles: Sequence[dict[str, Array]], batch: int) -> None:
        self._singles = singles
        self._joined: tuple[str, ...] = ()
        self._rest: list[dict[str, Array]] = [{} for _ in range(batch + 1)]
        if batch == 1:
            return
        make = split.raw if split.preprocess is not None else split.feed
        one, two = (make([i % split.n for i in range(size)]) for size in (1, 2))
        self._joined = tuple(k for k in one if one[k].shape[:1] == (1,) and two[k].shape[:1] == (2,))
        if len(self._joined) < len(one):
            for size in range(2, batch + 1):
                whole = make([i % split.n for i in range(size)])
                self._rest[size] = {k: v for k, v in whole.items() if k not in self._joined}

    def request(self, numbers: Sequence[int]) -> dict[str, Array]:
        """One run's arrays for the requests ``numbers``; each has a sample of its own."""
        if len(numbers) == 1:
            return self._singles[numbers[0] % len(self._singles)]
        import numpy as np

        parts = [self._singles[n % len(self._singles)] for n in numbers]
        return {**self._rest[len(numbers)], **{k: np.concatenate([p[k] for p in parts]) for k in self._joined}}


def answer(session: Session, split: Split, request: dict[str, Array]) -> list[Array]:
    """Run one request, hooks included; what the model gave."""
    if split.preprocess is not None:
        request = split.preprocessed(request)
    outputs = session.run(request)
    if split.postprocess is not None:
        from autopilot.data.hooks import apply_postprocess

        named = dict(zip(session.output_names, outputs, strict=True))
        apply_postprocess(split.postprocess, split.postprocess_reference or "", named)
    return outputs


@dataclass(slots=True)
class Window:
    """One window of requests: its times (CLOCK_MONOTONIC, ns) and what happened in it.

    ``runs``: numbers of the requests of one run, when it started and ended.
    """

    number: int
    count_ns: int
    stop_ns: int
    drain_ns: int
    ended: bool = False
    runs: list[tuple[list[int], int, int]] = field(default_factory=list)
    error: BaseException | None = None


class Batcher:
    """Serves windows of scheduled requests with one thread an instance.

    Args:
        run: called with (instance, request numbers); from several threads, one an instance.
        folder: where the queue's pipe is made.
        batch: the most requests in a run; ``max_delay_s``: how long the oldest may wait for more.
        instances: how many runs may go on side by side.
        unmet: (instance, requests in a run) of the runs that ``meet_next`` makes before the first window; ``met``
            is given the size and the outputs of each.
    """

    def __init__(
        self,
        run: Any,
        folder: Path,
        *,
        batch: int,
        max_delay_s: float,
        instances: int,
        unmet: Sequence[tuple[int, int]] = (),
        met: Callable[[int, Any], None] = lambda size, outputs: None,
    ) -> None:
        self._run = run
        self._met = met
        self._unmet = deque(unmet)
        self._other: ThreadPoolExecutor | None = None
        self._batch = batch
        self._max_delay_ns = round(max_delay_s * 1e9)
        self._instances = instances
        self._turn = threading.Lock()
        self.path = folder / QUEUE
        if not self.path.exists():
            os.mkfifo(self.path)
        # Open for writing too: no end of file between two generators.
        self._pipe = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    @property
    def unmet(self) -> int:
        """How many runs ``meet_next`` has yet to make."""
        return len(self._unmet)

    def meet_next(self) -> None:
        """Run the next size of batch for the first time in its instance, and once more.

        One size a call, so that the caller can bound each and say how far they are: a runtime that compiles may take
        a minute for one, and there may be dozens.

        Raises:
            VariantFailed: the run failed, or gives other answers than the size before (WRONG_NUMERICS).
        """
        instance, size = self._unmet.popleft()
        # Not in this thread, which windows are never served in: what was captured is a thread's own.
        self._other = self._other or ThreadPoolExecutor(1)
        numbers = list(range(size))
        # The second run of a shape is what a CUDA graph is captured in. As in serving, no answer is held beside it.
        self._other.submit(self._run, instance, numbers).result()
        self._met(size, self._other.submit(self._run, instance, numbers).result())
        if not self._unmet:
            self._other.shutdown()
            self._other = None

    def serve(self, window: Window) -> dict[str, Any]:
        """Serve until all requests of ``window`` are answered or its drain is over; times in ns.

        Raises:
            BaseException: what a run raised.
        """
        gc.disable()
        threads = [threading.Thread(target=self._work, args=(window, i), daemon=True) for i in range(self._instances)]
        for thread in threads:
            thread.start()
        _sleep_until(window.count_ns)
        cpu_ns = time.process_time_ns()
        _sleep_until(window.stop_ns)
        cpu_ns = time.process_time_ns() - cpu_ns
        for thread in threads:
            thread.join()
        gc.enable()
        self._empty()
        if window.error is not None:
            raise window.error
        return {"runs": window.runs, "cpu_ns": cpu_ns, "ended_ns": time.monotonic_ns()}

    def _empty(self) -> None:
        """Throw away what still waits, so that the next window finds an empty queue."""
        try:
            while os.read(self._pipe, 1 << 16):
                pass
        except BlockingIOError:
            return

    def _work(self, window: Window, instance: int) -> None:
        try:
            while True:
                with self._turn:
                    numbers = self._gather(window)
                if not numbers:
                    return
                start_ns = time.monotonic_ns()
                self._run(instance, numbers)
                window.runs.append((numbers, start_ns, time.monotonic_ns()))
        except BaseException as exc:  # a thread's error must reach the command that waits for it
            window.error = exc
            window.ended = True

    def _gather(self, window: Window) -> list[int]:
        """The next run's requests; none when the window is over."""
        numbers: list[int] = []
        due_ns = window.drain_ns
        while not window.ended and time.monotonic_ns() < window.drain_ns:
            for number, sent_ns in self._take(window, self._batch - len(numbers)):
                if not numbers:
                    due_ns = min(sent_ns + self._max_delay_ns, window.drain_ns)
                numbers.append(number)
            left_ns = due_ns - time.monotonic_ns()
            if len(numbers) == self._batch or window.ended or left_ns <= 0:
                break
            select.select([self._pipe], [], [], left_ns / 1e9)
        return numbers

    def _take(self, window: Window, most: int) -> list[tuple[int, int]]:
        """Up to ``most`` waiting requests of this window: number and when it was sent."""
        try:
            data = os.read(self._pipe, most * RECORD.size)
        except BlockingIOError:
            return []
        found = []
        for of_window, number, sent_ns in RECORD.iter_unpack(data):
            if of_window != window.number:
                continue  # left over from a window that was cut off
            if number == LAST:
                window.ended = True
            else:
                found.append((number, sent_ns))
        return found


def _sleep_until(when_ns: int) -> None:
    left_ns = when_ns - time.monotonic_ns()
    if left_ns > 0:
        time.sleep(left_ns / 1e9)


def batcher(
    sessions: Sequence[Session],
    split: Split,
    singles: Sequence[dict[str, Array]],
    told: Mapping[str, Any],
    *,
    every_size: bool = False,
) -> Batcher:
    """The batcher of a loaded model.

    ``told``: ``batch``, ``max_delay_ms``, ``fixed`` where only whole batches run, and ``scored``, the output in which
    sizes must agree ("" for the first). ``every_size``: each is to be run in every instance before the first window
    (``meet_next``), for runtimes that compile or tune for seconds when they first meet one, and where memory is read;
    others would spend seconds for nothing, at every start.
    """
    batch = int(told["batch"])
    samples = Samples(split, singles, batch)
    fill = batch if told["fixed"] else 1

    def run(instance: int, numbers: list[int]) -> list[Array]:
        padded = numbers + numbers[-1:] * (fill - len(numbers))
        return answer(sessions[instance], split, samples.request(padded))

    sizes = range(fill, batch + 1) if every_size else range(0)
    first_runs = FirstRuns(sessions[0].output_names, told.get("scored"))
    return Batcher(
        run,
        Path.cwd(),
        batch=batch,
        max_delay_s=float(told["max_delay_ms"]) / 1e3,
        instances=len(sessions),
        unmet=[(instance, size) for instance in range(len(sessions)) for size in sizes],
        met=first_runs.add,
    )
