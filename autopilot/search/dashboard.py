"""A finished study as an Optuna study in a database, for optuna-dashboard.

The search's own Optuna study is in memory and sees ratios to the baseline; what is shown here is what was measured.
"""

from __future__ import annotations

import datetime
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autopilot.domain import Scalar
from autopilot.errors import AutopilotError
from autopilot.profile import Measurement
from autopilot.recipe import Variant
from autopilot.report.points import rises
from autopilot.result import StudyResult, TrialRecord, recipe_text
from autopilot.result import TrialState as Ended
from autopilot.search.sampler import RUNNABLE

FILE = "optuna.db"


def export_study(result: StudyResult, file: Path) -> str:
    """Write the study's trials to the SQLite database ``file``, anew; the database's URL.

    Parameters are the recipe's and the deployment's, values the objectives as measured, constraints the
    dimensionless violations of the budget's limits; figures, verdict and failure are user attributes.

    Raises:
        AutopilotError: ``file`` can't be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{file.resolve().as_posix()}"
    try:
        file.unlink(missing_ok=True)
        storage = optuna.storages.RDBStorage(url)
    except (OSError, optuna.exceptions.StorageInternalError) as exc:
        raise AutopilotError(f"{file} can't be written: {exc}.", "Give a folder that you may write to.") from exc
    more, less = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [more if rises(result, axis) else less for axis in result.objectives]
    study = optuna.create_study(study_name=result.name, storage=storage, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(result.objectives))
    for name, value in _about(result).items():
        study.set_user_attr(name, value)
    distributions = common_distributions([params_of_variant(r.variant) for r in result.trials])
    study.add_trials(_in_a_row([as_trial(r, result, distributions) for r in result.trials], result.trials))
    storage.remove_session()
    return url


def as_trial(record: TrialRecord, result: StudyResult, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """One trial as Optuna shows it: COMPLETE with all objectives, PRUNED without, FAIL where it failed."""
    values = [_value(record.measured.get(axis)) for axis in result.objectives]
    known = all(math.isfinite(v) for v in values)
    if record.state is Ended.FAILED:
        state = TrialState.FAIL
    else:
        state = TrialState.COMPLETE if record.state is Ended.COMPLETE and known else TrialState.PRUNED
    params = params_of_variant(record.variant)
    violations = record.verdict.violations if record.verdict else {}
    constraints = {axis: violations.get(axis, 0.0) for axis in result.budget.axes}
    return create_trial(
        state=state,
        values=values if state is TrialState.COMPLETE else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs=_attributes(record),
        constraints={**constraints, RUNNABLE: 0.0} if state is TrialState.COMPLETE else None,
    )


def _in_a_row(trials: list[FrozenTrial], records: Sequence[TrialRecord]) -> list[FrozenTrial]:
    """The trials with times: how long each took is known, not when, so they are laid end to end."""
    spent_s = [sum(s for stage, s in r.seconds.items() if not stage.endswith("_saved")) for r in records]
    at = datetime.datetime.now() - datetime.timedelta(seconds=sum(spent_s))
    for trial, seconds in zip(trials, spent_s, strict=True):
        trial.datetime_start, at = at, at + datetime.timedelta(seconds=seconds)
        trial.datetime_complete = at
    return trials


def params_of_variant(variant: Variant) -> dict[str, Scalar]:
    """Recipe and deployment as flat parameters: ``techniques``, ``static_int8.per_channel``, ``threads``."""
    steps = variant.recipe.steps
    found: dict[str, Any] = {"techniques": " → ".join(step.technique for step in steps) or "as given"}
    for step in steps:
        found |= {f"{step.technique}.{name}": value for name, value in step.params}
    found |= variant.deployment.to_json()
    return {name: v if isinstance(v, (bool, int, float, str)) else str(v) for name, v in found.items()}


def common_distributions(params: Sequence[Mapping[str, Scalar]]) -> dict[str, BaseDistribution]:
    """One distribution a name, over all values seen: Optuna takes no second one. Numbers stay numbers."""
    seen: dict[str, list[Scalar]] = {}
    for one in params:
        for name, value in one.items():
            seen.setdefault(name, []).append(value)
    return {name: _distribution(values) for name, values in seen.items()}


def _distribution(values: Sequence[Scalar]) -> BaseDistribution:
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        unique: dict[tuple[type, Scalar], Scalar] = {(type(v), v): v for v in values}  # True isn't 1
        return CategoricalDistribution([unique[key] for key in sorted(unique, key=lambda k: (k[0].__name__, k[1]))])
    if all(isinstance(v, int) for v in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)))
    return FloatDistribution(float(min(numbers)), float(max(numbers)))


def _attributes(record: TrialRecord) -> dict[str, Any]:
    """What else is known of a trial; figures with their bounds."""
    found: dict[str, Any] = {"recipe": recipe_text(record.variant.recipe), "number": record.number}
    found |= {"state": record.state.value, "stage": record.stage, "reason": record.reason, "variant": record.id}
    found["failure"] = record.failure.value if record.failure else ""
    if record.verdict is not None:
        found["verdict"] = record.verdict.overall.value
        found |= {f"verdict.{axis}": j.value for axis, j in record.verdict.per_limit.items()}
    for axis, m in record.measured.items():
        found |= {axis: m.value, f"{axis}_low": m.low, f"{axis}_high": m.high}
    plain = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in found.items()}
    return {name: value for name, value in plain.items() if value not in (None, "")}


def _about(result: StudyResult) -> dict[str, Any]:
    budget = {f"budget.{limit.axis}": limit.text for limit in result.budget.limits}
    return {"status": result.status.value, "explanation": result.explanation, **budget}


def _value(measured: Measurement | None) -> float:
    return math.nan if measured is None or measured.value is None else measured.value
