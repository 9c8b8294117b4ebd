"""The searches that are compared: each a way to say which variant is next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autopilot.budget import Judgement
from autopilot.recipe import Variant
from autopilot.result import TrialRecord
from autopilot.search.proposer import Proposal
from autopilot.search.ranking import Ranking


class Count:
    """In place of the study's ledger: one run, nothing kept but the number of trials."""

    is_shared = False

    def __init__(self) -> None:
        self._finished = 0

    def claim(self, variant: Variant, most: int) -> bool:
        return True

    def release(self) -> None:
        """Nothing is held."""

    def give_up(self) -> None:
        """Nothing is held."""

    def recover(self, *, all_free: bool = False) -> list[Variant]:
        return []

    def others(self) -> frozenset[str]:
        return frozenset()

    def lost(self) -> frozenset[str]:
        return frozenset()

    def finish(self, record: TrialRecord) -> int:
        self._finished += 1
        return self._finished - 1

    def read(self, first: int) -> list[TrialRecord]:
        return []


@dataclass(slots=True)
class TwoLevel:
    """Recipes outside, deployments inside by successive halving (Jamieson & Talwalkar 2016).

    ``first`` recipes are tried in the usual deployment, recommended ones first, the rest in a drawn order; the
    better half gets one more deployment, the better half of these two more, and so on; then the next recipes.
    """

    variants: Sequence[Variant]
    recommended: Sequence[Variant]
    ranking: Ranking
    random: np.random.Generator
    first: int = 12
    _recipes: list[str] | None = None

    def next(
        self, records: Sequence[TrialRecord], is_new: Callable[[Variant], bool], left_s: float = math.inf
    ) -> Proposal:
        """The next variant of the scheme."""
        groups: dict[str, list[Variant]] = {}
        for variant in self.variants:
            groups.setdefault(variant.recipe.digest, []).append(variant)
        if self._recipes is None:
            known = [v.recipe.digest for v in self.recommended if v.recipe.digest in groups]
            others = [str(d) for d in self.random.permutation(sorted(set(groups) - set(known)))]
            self._recipes = [*dict.fromkeys(known), *others]
        tried: dict[str, list[TrialRecord]] = {}
        for record in records:
            tried.setdefault(record.variant.recipe.digest, []).append(record)
        rung = [d for d in self._recipes if d in tried]
        usual = records[0].variant.deployment
        if len(rung) < self.first or len(rung) % self.first:
            found = self._outer(groups, tried, is_new, usual)
            if found is not None:
                return Proposal(found)
        ranked = sorted(rung, key=lambda d: min(self._value(r) for r in tried[d]))
        wanted = 1
        while ranked:
            wanted, ranked = wanted * 2, ranked[: len(ranked) // 2]
            for name in ranked:
                left = [v for v in groups[name] if is_new(v)]
                if left and len(tried[name]) < wanted:
                    return Proposal(left[int(self.random.integers(len(left)))])
        found = self._outer(groups, tried, is_new, usual)
        if found is None:
            left = [v for v in self.variants if is_new(v)]
            found = left[int(self.random.integers(len(left)))] if left else None
        return Proposal(found)

    def _outer(
        self,
        groups: Mapping[str, list[Variant]],
        tried: Mapping[str, Any],
        is_new: Callable[[Variant], bool],
        usual: Any,
    ) -> Variant | None:
        for name in self._recipes or ():
            new = [v for v in groups[name] if is_new(v)] if name not in tried else []
            if new:
                return next((v for v in new if v.deployment == usual), new[0])
        return None

    def _value(self, record: TrialRecord) -> float:
        is_in = record.verdict is not None and record.verdict.overall is Judgement.IN
        return self.ranking.of(record).value if is_in else math.inf
