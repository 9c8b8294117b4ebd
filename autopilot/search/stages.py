"""What each stage of a trial costs and how many variants it ends, and the order of stages that follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from autopilot.result import StageCost, TrialRecord, TrialState


class Screen(StrEnum):
    """A stage of a trial, by the name that its wall time is kept under in ``seconds``."""

    BUILD = "build"
    LOAD = "load"
    LATENCY = "profile"
    ENERGY = "energy"
    QUALITY = "evaluate"


# Before anything is known a stage ends one variant in three; worth two trials, so that a few real ones outweigh it.
_PRIOR_KILLED, _PRIOR_RUNS = 2 / 3, 2.0
# What can be asked in any order once a variant loads. Energy is read from the same requests as latency tells.
_FREE = (Screen.LATENCY, Screen.QUALITY)


def stage_costs(records: Iterable[TrialRecord], *, first_runs: bool = True) -> tuple[StageCost, ...]:
    """One a stage, in the order of ``Screen``; the baseline and trials that repeat others count for nothing.

    A trial was ended by the last stage that it has seconds of: stages are timed in the order they are run.
    ``first_runs``: whether the latency pass's seconds are with those of the first runs that come before it, in its
    process and in the one whose memory was read; where a trial had no such pass its load has them.
    """
    runs = dict.fromkeys(Screen, 0)
    seconds = dict.fromkeys(Screen, 0.0)
    saved_s = dict.fromkeys(Screen, 0.0)
    killed = dict.fromkeys(Screen, 0)
    for record in records:
        if record.number == 0 or record.state is TrialState.DUPLICATE:
            continue
        seen = [screen for name in record.seconds if (screen := _SCREENS.get(name)) is not None]
        for screen in seen:
            runs[screen] += 1
            seconds[screen] += record.seconds[screen.value]
            saved_s[screen] += record.seconds.get(f"{screen}_saved", 0.0)
        if first_runs and SHAPES in record.seconds and seen:
            seconds[Screen.LATENCY if Screen.LATENCY in seen else Screen.LOAD] += record.seconds[SHAPES]
        if record.state is not TrialState.COMPLETE and seen:
            killed[seen[-1]] += 1
    return tuple(StageCost(s.value, runs[s], seconds[s], killed[s], saved_s[s]) for s in Screen)


# The name under which a trial's ``seconds`` have the first runs before the latency pass: see shapes.
SHAPES = "shapes"
# How many processes make them in a trial: the one whose memory is read, and the one that is timed.
MEETINGS = 2
_SCREENS = {screen.value: screen for screen in Screen}


def order(costs: Sequence[StageCost], expected_s: Mapping[Screen, float]) -> tuple[Screen, ...]:
    """The stages after the build, so that a variant is turned away at the least expected cost.

    Independent tests that each end a candidate with probability p at a price c cost least in the order of
    c / p (W. E. Smith's rule of 1956, as query optimisers order predicates: Hellerstein 1993).
    ``expected_s`` gives the price of a stage that no trial went through yet.
    """
    by_stage = {cost.stage: cost for cost in costs}

    def rank(screen: Screen) -> float:
        cost = by_stage.get(screen, StageCost(screen))
        price_s = expected_s.get(screen, 0.0) if cost.price_s is None else cost.price_s
        return price_s * (cost.runs + _PRIOR_RUNS) / (cost.killed + _PRIOR_KILLED)

    free = sorted(_FREE, key=rank)
    free.insert(free.index(Screen.LATENCY) + 1, Screen.ENERGY)
    return (Screen.LOAD, *free)
