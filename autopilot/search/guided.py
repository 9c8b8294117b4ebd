"""An Optuna sampler whose trials are chosen whole: a proposer says which variant is next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from autopilot.domain import Choice, Domain, Int, Scalar
from autopilot.recipe import Variant
from autopilot.space import SearchSpace

Choose = Callable[[], Variant | None]
_QUEUED = "fixed_params"  # Optuna's mark of a trial whose parameters were given to ``enqueue_trial``


class GuidedSampler(optuna.samplers.BaseSampler):
    """Asks ``choose`` for each trial that nobody queued; where it has nothing to say, Optuna draws at random."""

    def __init__(self, space: SearchSpace, choose: Choose, *, seed: int) -> None:
        self._space = space
        self._choose = choose
        self._drawn = optuna.samplers.RandomSampler(seed=seed)
        self._params: Mapping[str, Scalar] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that the chosen variant has."""
        self._params = {}
        variant = None if _QUEUED in trial.system_attrs else self._choose()
        found = None if variant is None else choices_of(self._space, variant)
        if found is None:
            return {}
        self._params, distributions = found
        return dict(distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Their values."""
        return dict(self._params)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, of what nobody chose."""
        return self._drawn.sample_independent(study, trial, param_name, param_distribution)


def choices_of(
    space: SearchSpace, variant: Variant
) -> tuple[Mapping[str, Scalar], Mapping[str, BaseDistribution]] | None:
    """Values and Optuna's distributions of the choices that give ``variant``; None where ``space`` can't give it."""
    params: dict[str, Scalar] = {}
    distributions: dict[str, BaseDistribution] = {}

    def replay(name: str, domain: Domain) -> Scalar:
        value = names[name]
        if not domain.contains(value):
            raise KeyError(name)
        params[name], distributions[name] = value, _distribution(domain)
        return value

    try:
        names = space.names_of(variant)
        return (params, distributions) if space.sample(replay) == variant else None
    except KeyError:  # a technique, a choice or a value that the space doesn't have
        return None


def _distribution(domain: Domain) -> BaseDistribution:
    """The same as the sampler's suggestions ask for: Optuna takes one kind a name."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(list(domain.values))
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log)
