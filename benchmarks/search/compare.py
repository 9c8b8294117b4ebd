#!/usr/bin/env python3
"""Replay searches against recorded spaces: who finds the optimum, and for how much of the exhaustive wall time.

    python benchmarks/search/compare.py [NAME ...] [--seeds 100] [--players surrogate tpe ...] [--share 0.25]

Found: the variant that the search chooses after its verification is in budget and within 3% of the best of all
variants. The clock is the recording's; thinking costs nothing here and is measured in overhead.py.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from autopilot.recipe import Recipe, Variant
from autopilot.result import TrialRecord, TrialState
from autopilot.search import proposer
from autopilot.search.book import Book
from autopilot.search.candidates import SpaceCandidates
from autopilot.search.evaluator import USUAL_ORDER
from autopilot.search.finalists import MOST_TIED, line_up
from autopilot.search.hunt import Hunt, Watch
from autopilot.search.outcome import VERIFYING
from autopilot.search.proposer import Proposer
from autopilot.search.sampler import Sampler
from autopilot.space_walk import walk
from benchmarks.search.players import Count, TwoLevel
from benchmarks.search.recording import Recording
from benchmarks.search.replay import Replay, World, target_of

HERE = Path(__file__).resolve().parent
WITHIN = 1.03


@dataclass(frozen=True, slots=True)
class Ran:
    """How one search ended: objective over the optimum's, share of the exhaustive time, whether it lost the optimum.

    ``reached``: the share of that time after which a variant within 3% had been measured; infinite for never.
    """

    regret: float
    share: float
    reached: float
    lost: bool
    trials: int
    thinking_s: float

    @property
    def found(self) -> bool:
        return self.regret <= WITHIN


@dataclass(frozen=True, slots=True)
class Player:
    """A search: Optuna's sampler (for drawing, or just for keeping the book) and what proposes, if anything."""

    name: str
    sampler: Callable[[int], optuna.samplers.BaseSampler]
    proposer: Callable[[World, Sequence[Variant], int], Any] | None = None
    staged: bool = True
    recommended: bool = True


def _random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _surrogate(world: World, variants: Sequence[Variant], seed: int) -> Proposer:
    candidates = SpaceCandidates(world.space, target_of(world.recording.about), world.ranking, seed=seed)
    return Proposer(candidates, world.ranking, world.budget.axes)


def _two_level(world: World, variants: Sequence[Variant], seed: int) -> TwoLevel:
    return TwoLevel(variants, _recommended(world), world.ranking, np.random.default_rng(seed))


PLAYERS = (
    Player("random, no stages", _random, staged=False, recommended=False),
    Player("plain TPE, no stages", _tpe, staged=False, recommended=False),
    Player("random", _random),
    Player("tpe", _tpe),
    Player("gp", _gp),
    Player("two-level", _random, _two_level),
    Player("surrogate", _random, _surrogate),
)


def _recommended(world: World) -> list[Variant]:
    found = [v for v in world.space.known_good(target_of(world.recording.about)) if v.id in world.by_id]
    return [v for v in found if world.space.refusal(v.recipe) is None]


def play(world: World, player: Player, seed: int, share: float) -> Ran:
    """One search with a limit of ``share`` of the exhaustive wall time."""
    limit_s = share * world.exhaustive_s()
    sampler = Sampler(maximize=False, seed=seed, limits=world.budget.axes, draws=player.sampler(seed))
    replay = Replay(world, np.random.default_rng(seed), staged=player.staged)
    book = Book(sampler, Count(), world.ranking, work=None, space=world.space)
    variants = [v for v in walk(world.space) if v.id in world.by_id]
    _baseline(world, replay, book)
    if player.recommended and player.proposer is None:
        for variant in _recommended(world):
            sampler.enqueue(world.space, variant)
    proposes = player.proposer(world, variants, seed) if player.proposer is not None else None
    hunt = Hunt(
        world.space,
        sampler,
        book,
        replay,
        trials=10**6,
        deadline=limit_s,
        proposer=proposes,
        watch=(watch := _Stopwatch(world, replay)),
        clock=lambda: replay.now,
    )
    start = time.perf_counter()
    hunt.run()
    thinking_s = time.perf_counter() - start
    value, best = _chosen(world, replay, book.records), world.best()
    lost = any(r.state is not TrialState.COMPLETE and r.failure is None and r.state is not TrialState.DUPLICATE
               and world.value(r.variant) <= best * 1.0000001 for r in book.records)  # fmt: skip
    whole_s = world.exhaustive_s()
    return Ran(value / best, replay.now / whole_s, watch.reached_s / whole_s, lost, len(book.records), thinking_s)


class _Stopwatch(Watch):
    """Notes when a variant near the optimum was first measured to the end."""

    def __init__(self, world: World, replay: Replay) -> None:
        self._world = world
        self._replay = replay
        self.reached_s = math.inf

    def finished(self, record: TrialRecord) -> None:
        near = self._world.value(record.variant) <= WITHIN * self._world.best()
        if near and record.state is TrialState.COMPLETE:
            self.reached_s = min(self.reached_s, self._replay.now)


def _baseline(world: World, replay: Replay, book: Book) -> None:
    """Trial 0: the model as given, measured to the end; not charged, as the exhaustive search has it too."""
    variant = Variant(Recipe(), world.space.default_deployment())
    outcome = replay.measure(
        variant, replay.build(Recipe(), {}), VERIFYING, give_up=lambda measured: None, order=USUAL_ORDER
    )
    book.measured(None, outcome, replay.verdict(outcome))
    replay.now = 0.0


def _chosen(world: World, replay: Replay, records: Sequence[TrialRecord]) -> float:
    """The true objective of what verification would choose: tied finalists are measured again, in three processes."""
    tied: list[tuple[float, Variant]] = []
    bar = math.inf
    for record in line_up(records, world.ranking):
        figures = world.ranking.of(record)
        if len(tied) >= MOST_TIED or figures.low > bar:
            break
        if not math.isfinite(world.value(record.variant)):
            continue  # it doesn't hold when measured again
        bar = min(bar, figures.high)
        noise = float(replay.random.normal(0.0, world.spread / math.sqrt(3)))
        tied.append((world.value(record.variant) * math.exp(noise), record.variant))
    return world.value(min(tied, key=lambda pair: pair[0])[1]) if tied else math.inf


def main() -> int:
    """Print one table a recorded workload."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--players", nargs="*", default=[p.name for p in PLAYERS if p.name != "gp"])
    parser.add_argument("--to-the-end", action="store_true", help="no search ends before its time is up")
    told = parser.parse_args()
    if told.to_the_end:
        proposer.WORTH = -1.0  # the pool's processes are forked with it
    files = [HERE / "recorded" / f"{name}.npz" for name in told.names]
    players = [p.name for p in PLAYERS if p.name in told.players]
    for file in files or sorted((HERE / "recorded").glob("*.npz")):
        _table(file, players, told.seeds, told.share)
    return 0


@cache
def _world(file: Path) -> World:
    with tempfile.TemporaryDirectory() as folder:
        return World.of(Recording.load(file), Path(folder))


def _played(file: Path, name: str, share: float, seed: int) -> Ran:
    """One search, in a process of the pool."""
    _quiet()
    player = next(p for p in PLAYERS if p.name == name)
    return play(_world(file), player, seed, share)


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def _table(file: Path, players: Sequence[str], seeds: int, share: float) -> None:
    world = _world(file)
    within = sum(world.value(r.variant) <= WITHIN * world.best() for r in world.recording.variants)
    print(
        f"\n{world.recording.name}: {len(world.by_id)} variants, {world.exhaustive_s():.0f} s exhaustively, "
        f"best {world.best():.4f} of baseline, {within} within 3%; {seeds} seeds, {share:.0%} of that time"
    )
    head = ("search", "found", "median", "worst", "time", "reached", "95%", "trials", "lost", "ms")
    print("{:22s} {:>6s} {:>7s} {:>7s} {:>6s} {:>7s} {:>6s} {:>7s} {:>5s} {:>6s}".format(*head))
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        for name in players:
            _row(name, list(pool.map(partial(_played, file, name, share), range(seeds), chunksize=5)))


def _row(name: str, ran: Sequence[Ran]) -> None:
    regret, reached = np.array([r.regret for r in ran]), np.array([r.reached for r in ran])
    thinking_ms = 1e3 * np.mean([r.thinking_s / max(1, r.trials) for r in ran])
    print(
        f"{name:22s} {np.mean([r.found for r in ran]):6.0%} {np.median(regret):7.3f} {regret.max():7.3f} "
        f"{np.mean([r.share for r in ran]):6.1%} {np.median(reached):7.1%} "
        f"{np.quantile(reached, 0.95, method='higher'):6.1%} {np.mean([r.trials for r in ran]):7.1f} "
        f"{sum(r.lost for r in ran):5d} {thinking_ms:6.1f}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
