"""How much faster several files of one model's variants run, timed in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autopilot.contracts import Feed
from autopilot.techniques import _gate

# Single requests in many rounds: with four times as many processes as cores, the shares of eight files differed by
# 0.2% between repeats so, by 7% with as many requests in blocks of sixteen, which the scheduler cuts into.
_FEWEST_ROUNDS, _MOST_ROUNDS = 9, 301
_WARM_UP = 3
# Sessions open at once: each holds a model's memory.
_TOGETHER = 8
# A saving within so many standard errors of its median is noise.
_SURE = 2.0


@dataclass(frozen=True, slots=True)
class Timing:
    """``whole_ms``: the reference's milliseconds a request; ``saved``: by what share of them each other file is faster.

    A share that the noise doesn't let tell from nothing is 0.
    """

    whole_ms: float
    saved: tuple[float, ...]


def time_against(reference: Path, others: Sequence[Path], feed: Feed, *, threads: int, seconds: float) -> Timing:
    """Time ``others`` beside ``reference`` on ONNX Runtime's CPU provider, in about ``seconds``.

    In each round every file answers one request; the median over the rounds of its ratio to the reference counts.
    """
    base = _gate.session(reference, threads)
    whole_ms: list[float] = []
    saved: list[float] = []
    for start in range(0, len(others), _TOGETHER):
        chunk = others[start : start + _TOGETHER]
        blocks_s = _rounds(
            [base, *(_gate.session(p, threads) for p in chunk)], feed, seconds * len(chunk) / len(others)
        )
        whole_ms.append(float(np.median(blocks_s[:, 0])) * 1e3)
        saved += [_share(1.0 - blocks_s[:, i] / blocks_s[:, 0]) for i in range(1, blocks_s.shape[1])]
    return Timing(float(np.median(whole_ms)), tuple(saved))


def _rounds(sessions: Sequence[Any], feed: Feed, seconds: float) -> Any:
    """Seconds a request of each session in each round: float64, shape (rounds, sessions)."""
    feeds = [_gate.feed_for(runner, feed) for runner in sessions]
    begun = time.perf_counter()
    for runner, given in zip(sessions, feeds, strict=True):
        for _ in range(_WARM_UP):
            runner.run(None, given)
    request_s = (time.perf_counter() - begun) / (_WARM_UP * len(sessions))
    rounds = int(np.clip(seconds / (2 * request_s * len(sessions)), _FEWEST_ROUNDS, _MOST_ROUNDS))
    out = np.empty((rounds, len(sessions)))
    for turn in range(rounds):
        for step in range(len(sessions)):
            i = (turn + step) % len(sessions)  # nobody always comes first, nor after the same neighbour
            sessions[i].run(None, feeds[i])  # its weights are in the caches again, as in a server of one model
            begun = time.perf_counter()
            sessions[i].run(None, feeds[i])
            out[turn, i] = time.perf_counter() - begun
    return out


def _share(seen: Any) -> float:
    """The median of ``seen``, float64 of shape (rounds,); 0 where its standard error is too large to tell it."""
    middle = float(np.median(seen))
    deviation = 1.4826 * float(np.median(np.abs(seen - middle)))
    error = 1.2533 * deviation / np.sqrt(len(seen))  # of a median of normal figures
    return middle if middle > _SURE * error else 0.0
