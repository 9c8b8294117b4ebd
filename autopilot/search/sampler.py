"""The Optuna study: ask for a variant, tell what became of it. Optuna lives here and nowhere else."""

from __future__ import annotations

import json
import logging
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from autopilot.domain import Choice, Domain, Float, Int, Scalar
from autopilot.recipe import Variant
from autopilot.space import SearchSpace

RECORD = "record"
VALUE = "value"  # what the trial is about to be told, None for PRUNED
AGAIN = "again"  # marks a trial that was interrupted once already
RUNNABLE = "runnable"


class Sampler:
    """One constrained study in an RDB, resumable after a kill at any moment.

    A trial's record is stored before Optuna is told its state, so a trial that was finished
    but not told is told on resume instead of being lost.
    """

    def __init__(
        self, folder: Path, name: str, *, maximize: bool | Sequence[bool], seed: int, limits: tuple[str, ...]
    ) -> None:
        directions = [maximize] if isinstance(maximize, bool) else list(maximize)  # one an objective
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("optuna").setLevel(logging.ERROR)
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
        existing = {s.study_name for s in storage.get_all_studies()}
        done = len(storage.get_all_trials(storage.get_study_id_from_name(name))) if name in existing else 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # A resumed sampler must not repeat the draws of the first part: the seed moves on.
            sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed + done)
        self._study = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler,
            directions=["maximize" if more else "minimize" for more in directions],
            load_if_exists=True,
        )
        self._random = random.Random(seed + done)
        self._limits = limits
        self._signs = [-1.0 if more else 1.0 for more in directions]

    def recover(self) -> list[dict[str, Any]]:
        """Records of the finished trials, in order; those that a kill left running are ended and queued again."""
        records = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is TrialState.RUNNING:
                self._end(trial)
            if RECORD in trial.user_attrs:
                records.append(json.loads(trial.user_attrs[RECORD]))
        return records

    def _end(self, trial: FrozenTrial) -> None:
        """End a trial that was cut off: as it was to be told, or, where nothing was known yet, by trying it again.

        Once only: a variant that takes the whole machine down must not do so at every resume.
        """
        if RECORD in trial.user_attrs:
            value = trial.user_attrs[VALUE]
            self._study.tell(trial.number, value, state=TrialState.PRUNED if value is None else TrialState.COMPLETE)
            return
        if AGAIN not in trial.user_attrs:
            params = trial.system_attrs.get("fixed_params", trial.params)
            self._study.enqueue_trial(dict(params), user_attrs={AGAIN: True})
        self._study.tell(trial.number, state=TrialState.FAIL)

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

    def tell_measured(
        self,
        trial: Trial,
        record: dict[str, Any] | None,
        *,
        value: float | Sequence[float],
        violations: Mapping[str, float],
    ) -> None:
        """A complete trial: its objective (or one ``value`` an objective) and one constraint a limit."""
        self._constrain(trial, {axis: violations.get(axis, 0.0) for axis in self._limits} | {RUNNABLE: 0.0})
        values = [value] if isinstance(value, (int, float)) else value
        finite = [v if math.isfinite(v) else sign * 1e12 for v, sign in zip(values, self._signs, strict=True)]
        self._store(trial, record, finite)
        self._study.tell(trial, finite)

    def tell_pruned(self, trial: Trial, record: dict[str, Any] | None, violations: Mapping[str, float]) -> None:
        """A trial ended early by a certain violation, with the constraints known so far."""
        self._constrain(trial, {**violations, RUNNABLE: 0.0})
        self._store(trial, record)
        self._study.tell(trial, state=TrialState.PRUNED)

    def tell_failed(self, trial: Trial, record: dict[str, Any] | None) -> None:
        """A variant that can't run: the sampler must see it, so PRUNED with ``runnable`` violated.

        Without a ``record`` the trial is no trial of the study: nothing was run for it.
        """
        self._constrain(trial, {RUNNABLE: 1.0})
        self._store(trial, record)
        self._study.tell(trial, state=TrialState.PRUNED)

    def tell_unstable(self, trial: Trial, record: dict[str, Any] | None) -> None:
        """A trial that the machine spoilt: it tells nothing about its variant, so samplers don't see it."""
        self._store(trial, record)
        self._study.tell(trial, state=TrialState.FAIL)

    def abandon(self, trial: Trial) -> None:
        """A trial that told nothing about its variant: invisible to the sampler."""
        self._study.tell(trial, state=TrialState.FAIL)

    @staticmethod
    def _constrain(trial: Trial, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            trial.set_constraint(key, value)

    @staticmethod
    def _store(trial: Trial, record: dict[str, Any] | None, value: Sequence[float] | None = None) -> None:
        if record is not None:
            trial.set_user_attr(VALUE, value)  # before the record, which says that the trial is finished
            trial.set_user_attr(RECORD, json.dumps(record, allow_nan=False))

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def _suggest(trial: Trial, name: str, domain: Domain) -> Scalar:
    value: Scalar
    if isinstance(domain, Choice):
        value = trial.suggest_categorical(name, list(domain.values))
    elif isinstance(domain, Int):
        value = trial.suggest_int(name, domain.low, domain.high, step=domain.step, log=domain.log)
    elif isinstance(domain, Float):
        value = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    return value
