"""The searches that are compared: each a way to say which variant is next."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from autopilot.budget import Judgement
from autopilot.domain import Choice, Domain, Float, Scalar
from autopilot.recipe import Variant
from autopilot.result import TrialRecord
from autopilot.search.finalists import Ranking
from autopilot.search.proposer import Proposal
from autopilot.space import SearchSpace


class Asker:
    """An Optuna study in memory with the product's way of telling it (``autopilot.search.sampler``)."""

    def __init__(self, sampler: optuna.samplers.BaseSampler, limits: Sequence[str], seed: int) -> None:
        self._study = optuna.create_study(sampler=sampler)
        self._limits = limits
        self._random = np.random.default_rng(seed)

    def enqueue(self, space: SearchSpace, variant: Variant, *, once: bool = True) -> None:
        self._study.enqueue_trial(dict(space.names_of(variant)), skip_if_exists=once)

    def enqueue_unseen(self, space: SearchSpace, is_new: Callable[[Variant], bool], attempts: int = 300) -> bool:
        for _ in range(attempts):
            variant = space.sample(self._draw)
            if is_new(variant):
                self.enqueue(space, variant, once=False)
                return True
        return False

    def _draw(self, name: str, domain: Domain) -> Scalar:
        if isinstance(domain, Choice):
            return domain.values[int(self._random.integers(len(domain.values)))]
        if isinstance(domain, Float):
            return float(self._random.uniform(domain.low, domain.high))
        return int(self._random.integers(domain.low, domain.high + 1))

    def ask(self, space: SearchSpace) -> tuple[Trial, Variant]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self._study.ask()
            return trial, space.sample(lambda name, domain: _suggest(trial, name, domain))

    def tell_measured(self, trial: Trial, record: Any, *, value: float, violations: Mapping[str, float]) -> None:
        for axis in self._limits:
            trial.set_constraint(axis, violations.get(axis, 0.0))
        trial.set_constraint("runnable", 0.0)
        self._study.tell(trial, value if math.isfinite(value) else 1e12)

    def tell_pruned(self, trial: Trial, record: Any, violations: Mapping[str, float]) -> None:
        for axis, value in violations.items():
            trial.set_constraint(axis, value)
        trial.set_constraint("runnable", 0.0)
        self._study.tell(trial, state=TrialState.PRUNED)

    def tell_failed(self, trial: Trial, record: Any) -> None:
        trial.set_constraint("runnable", 1.0)
        self._study.tell(trial, state=TrialState.PRUNED)

    def tell_unstable(self, trial: Trial, record: Any) -> None:
        self._study.tell(trial, state=TrialState.FAIL)

    def abandon(self, trial: Trial) -> None:
        self._study.tell(trial, state=TrialState.FAIL)


def _suggest(trial: Trial, name: str, domain: Domain) -> Scalar:
    value: Scalar
    if isinstance(domain, Choice):
        value = trial.suggest_categorical(name, list(domain.values))
    elif isinstance(domain, Float):
        value = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    else:
        value = trial.suggest_int(name, domain.low, domain.high, step=domain.step, log=domain.log)
    return value


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

    def next(self, records: Sequence[TrialRecord], is_new: Callable[[Variant], bool]) -> Proposal:
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
