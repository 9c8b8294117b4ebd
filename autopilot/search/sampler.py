"""The sampler: which variant to try next, and what it learns of each. Optuna lives here and in guided.py.

The Optuna study is in memory: what has to outlive the process is in the ledger, and every run of the study
teaches its own sampler all records, those of other runs too.
"""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from autopilot.domain import Choice, Domain, Int, Scalar
from autopilot.recipe import Variant
from autopilot.search.guided import Choose, GuidedSampler, choices_of
from autopilot.space import SearchSpace

RUNNABLE = "runnable"
# Stands for an infinite objective, which Optuna refuses: worse than any.
_WORST = 1e12


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a variant, as far as a sampler learns of it.

    ``values`` has a figure an objective, None where the trial ended before they were known. ``violations`` holds
    how far limits were broken, by axis. A variant that can't run is not ``runnable``: FAIL would hide it, and it
    would be proposed for ever. ``spoilt`` is a trial that says nothing about its variant.
    """

    values: Sequence[float] | None = None
    violations: Mapping[str, float] = field(default_factory=dict)
    runnable: bool = True
    spoilt: bool = False


class Sampler:
    """One constrained Optuna study."""

    def __init__(
        self,
        *,
        maximize: bool | Sequence[bool],
        seed: int,
        limits: tuple[str, ...],
        draws: optuna.samplers.BaseSampler | None = None,
    ) -> None:
        """``maximize``: whether more is better, one an objective.

        ``draws``: what draws variants until ``guide`` is called; at random where it is None.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._random = random.Random(seed)
        self._limits = limits
        directions = [maximize] if isinstance(maximize, bool) else list(maximize)
        self._signs = [-1.0 if more else 1.0 for more in directions]
        self._study = optuna.create_study(
            sampler=draws or optuna.samplers.RandomSampler(seed=seed),
            directions=["maximize" if more else "minimize" for more in directions],
        )

    def guide(self, space: SearchSpace, choose: Choose) -> None:
        """Have ``choose`` say which variant is next, where none is queued."""
        self._study.sampler = GuidedSampler(space, choose, seed=self._random.randrange(2**32))

    def enqueue(self, space: SearchSpace, variant: Variant, *, once: bool = True) -> None:
        """Have ``variant`` tried before anything the sampler thinks of; with ``once`` not where it ever was queued."""
        self._study.enqueue_trial(dict(space.names_of(variant)), skip_if_exists=once)

    def enqueue_unseen(self, space: SearchSpace, is_new: Callable[[Variant], bool], attempts: int = 300) -> bool:
        """Queue a random variant that ``is_new``; False when none is found: the space is used up."""
        for _ in range(attempts):
            variant = space.sample(self._draw)
            if is_new(variant):
                self._study.enqueue_trial(dict(space.names_of(variant)))
                return True
        return False

    def _draw(self, name: str, domain: Domain) -> Scalar:
        if isinstance(domain, Choice):
            return self._random.choice(domain.values)
        if isinstance(domain, Int):
            return self._random.randrange(domain.low, domain.high + 1, domain.step)
        return self._random.uniform(domain.low, domain.high)

    def ask(self, space: SearchSpace) -> tuple[Trial, Variant]:
        """The next trial and its variant."""
        with warnings.catch_warnings():
            # Optuna warns where a queued value is outside a domain that the space narrowed since.
            warnings.simplefilter("ignore")
            trial = self._study.ask()
            variant = space.sample(lambda name, domain: _suggest(trial, name, domain))
        return trial, variant

    def tell(self, trial: Trial, told: Told) -> None:
        """End ``trial`` with what was learnt."""
        state, values, constraints = self._as_optuna(told)
        for key, violation in constraints.items():
            trial.set_constraint(key, violation)
        self._study.tell(trial, values, state=state)

    def learn(self, space: SearchSpace, variant: Variant, told: Told) -> None:
        """A trial that was run elsewhere or earlier. One that ``space`` can't give tells nothing and is left out."""
        found = choices_of(space, variant)
        if found is None:
            return
        params, distributions = found
        state, values, constraints = self._as_optuna(told)
        self._study.add_trial(
            create_trial(
                state=state,
                values=values,
                params=dict(params),
                distributions=dict(distributions),
                # As a queued one, so that it isn't queued again.
                system_attrs={"fixed_params": dict(space.names_of(variant))},
                constraints=dict(constraints),
            )
        )

    def _as_optuna(self, told: Told) -> tuple[TrialState, list[float] | None, Mapping[str, float]]:
        """State, value and constraints; a complete trial has one constraint a limit, or some samplers refuse it."""
        if told.spoilt:
            return TrialState.FAIL, None, {}
        if not told.runnable:
            return TrialState.PRUNED, None, {RUNNABLE: 1.0}
        if told.values is None:
            return TrialState.PRUNED, None, {**told.violations, RUNNABLE: 0.0}
        constraints = {axis: told.violations.get(axis, 0.0) for axis in self._limits} | {RUNNABLE: 0.0}
        values = [v if math.isfinite(v) else sign * _WORST for v, sign in zip(told.values, self._signs, strict=True)]
        return TrialState.COMPLETE, values, constraints

    def abandon(self, trial: Trial) -> None:
        """A trial that told nothing about its variant: invisible to the sampler."""
        self._study.tell(trial, state=TrialState.FAIL)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def _suggest(trial: Trial, name: str, domain: Domain) -> Scalar:
    value: Scalar
    if isinstance(domain, Choice):
        value = trial.suggest_categorical(name, list(domain.values))
    elif isinstance(domain, Int):
        value = trial.suggest_int(name, domain.low, domain.high, step=domain.step, log=domain.log)
    else:
        value = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    return value
