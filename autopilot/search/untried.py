"""Techniques of the space that no trial came to: a search that ends before their turn says so. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from autopilot.needs import Lack, NotTried
from autopilot.result import TrialRecord, is_cut_off
from autopilot.space import SearchSpace
from autopilot.target import Target


def untried(space: SearchSpace, records: Sequence[TrialRecord], ended: str, target: Target) -> tuple[NotTried, ...]:
    """What ``space`` has and no record holds, in the space's order; ``ended`` says why the search did."""
    tried = {step.technique for r in records for step in r.variant.recipe.steps}
    found = []
    for name, (technique, _) in space.techniques.items():
        if name in tried:
            continue
        advised = any(technique.prefer(target.running(provider)) for provider in space.providers)
        turn = "no trial of it came to its end" if is_cut_off(ended) else "the search ended before its turn"
        why = turn if advised else "not recommended for this machine, and not come to"
        found.append(NotTried("technique", name, Lack.SEARCH, f"{why}: {ended}" if ended else why))
    return tuple(found)
