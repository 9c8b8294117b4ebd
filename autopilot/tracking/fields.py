"""What of a record becomes which MLflow parameter, metric and tag. Pure: no MLflow in here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from autopilot.profile import Interval, Measurement
from autopilot.recipe import Deployment, Recipe, Variant, digest
from autopilot.result import Candidate, StudyResult, TrialRecord, recipe_text

# MLflow's limits, with room to spare: 6000 a parameter, 8000 a tag, 250 a name (3.17).
_LONGEST = 5000
_LONGEST_NAME = 200

RECORD_TAG = "autopilot.record"
NUMBER_TAG = "number"
# What became of the trial, as in trials.csv; set when the study is over.
PLACE_TAG = "place"
WINNER = "best"
# What a trial has in some results only: where a later one says nothing of it, it goes.
PASSING_TAGS = ("reason", "verified", "warnings")
_STAR = "★ "


def cut(text: str, longest: int = _LONGEST) -> str:
    """``text``, shortened where MLflow would refuse it."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def full_text(variant: Variant) -> str:
    """A variant's recipe with every parameter."""
    return recipe_text(variant.recipe)


def run_name(record: TrialRecord, naming: Callable[[Variant], str] = full_text) -> str:
    """A trial's name in MLflow: its number and what was done, as ``naming`` says it."""
    return cut(f"{record.number:03d} {naming(record.variant)}", _LONGEST_NAME)


def starred(name: str, *, wins: bool) -> str:
    """A trial's name with a star after its number where it ``wins``, else without.

    >>> starred("004 static_int8", wins=True), starred("004 ★ static_int8", wins=False)
    ('004 ★ static_int8', '004 static_int8')
    """
    number, _, what = name.partition(" ")
    return f"{number} {_STAR if wins else ''}{what.removeprefix(_STAR)}"


def variant_params(recipe: Recipe, deployment: Deployment) -> dict[str, str]:
    """Searchable parameters: ``params.`static_int8.per_channel` = 'True'``, ``params.threads = '1'``."""
    params = {"recipe": recipe_text(recipe), "techniques": ",".join(s.technique for s in recipe.steps) or "none"}
    for step in recipe.steps:
        params |= {f"{step.technique}.{name}": str(value) for name, value in step.params}
    params |= {name: str(value) for name, value in deployment.to_json().items()}
    return {name: cut(value) for name, value in params.items()}


def measured_metrics(measured: Mapping[str, Measurement], prefix: str = "") -> dict[str, float]:
    """``axis``, ``axis_low``, ``axis_high`` (and ``axis_ratio…`` against the baseline); finite ones only."""
    found: dict[str, float | None] = {}
    for axis, m in measured.items():
        found |= {axis: m.value, f"{axis}_low": m.low, f"{axis}_high": m.high}
        found |= _interval(f"{axis}_ratio", m.ratio)
    return {prefix + name: float(v) for name, v in found.items() if v is not None and math.isfinite(v)}


def _interval(name: str, interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def trial_metrics(record: TrialRecord) -> dict[str, float]:
    """Everything measured in a trial, and the seconds each stage took."""
    seconds = {f"seconds.{stage}": s for stage, s in record.seconds.items() if math.isfinite(s)}
    return {**measured_metrics(record.measured), **seconds}


def trial_tags(record: TrialRecord) -> dict[str, str]:
    """State, stage, failure and verdicts of a trial; ``autopilot.record`` is the digest of it all."""
    tags = {
        NUMBER_TAG: str(record.number),
        "variant": record.id,
        "state": record.state.value,
        "stage": record.stage,
        "failure": record.failure.value if record.failure else "",
        "reason": record.reason,
        "sha256": record.artifact.sha256 if record.artifact else "",
        "warnings": " | ".join(record.warnings),
        "log": record.log[-_LONGEST:],
        RECORD_TAG: digest(record.to_json()),
    }
    if record.verdict:
        tags["verdict"] = record.verdict.overall.value
        tags |= {f"verdict.{axis}": j.value for axis, j in record.verdict.per_limit.items()}
    if record.verified:
        tags["verified"] = record.verified.overall.value
    return {name: cut(value) for name, value in tags.items() if value}


def environment_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    """The environment's plain facts (strings and numbers), to search runs by machine."""
    plain = {k: v for k, v in environment.items() if isinstance(v, (str, int, float)) and v != ""}
    return {f"environment.{name}": cut(str(value)) for name, value in list(plain.items())[:40]}


def study_metrics(result: StudyResult) -> dict[str, float]:
    """Of the parent run: baseline and chosen candidate side by side, the speedup, the trial count."""
    # The baseline's ratios to itself would be charts of ones.
    own = {axis: replace(m, ratio=None) for axis, m in result.baseline.measured.items()}
    metrics = measured_metrics(own, "baseline/")
    if result.chosen is not None:
        metrics |= measured_metrics(result.chosen.measured, "best/" if result.best else "nearest/")
        speedup = _interval("speedup", result.chosen.speedup)
        metrics |= {k: float(v) for k, v in speedup.items() if v is not None and math.isfinite(v)}
    return {**metrics, "trials": float(len(result.trials)), "elapsed_s": result.elapsed_s}


def study_tags(result: StudyResult) -> dict[str, str]:
    """Of the parent run: how the study ended and, as the run's description, why."""
    tags = {
        "status": result.status.value,
        "objective": ", ".join(result.objectives),
        "mlflow.note.content": result.explanation,
        "baseline": result.baseline_choice.text,
        "warnings": " | ".join(result.warnings),
        "rationale": result.rationale or "",
        "budget_version": "" if result.budget_version is None else str(result.budget_version),
    }
    if result.chosen is not None:
        tags |= {
            "variant": result.chosen.id,
            "recipe": recipe_text(result.chosen.recipe),
            "sha256": result.chosen.sha256,
        }
    return {name: cut(value) for name, value in tags.items() if value}


def version_tags(result: StudyResult, chosen: Candidate, *, fallback: int | None = None) -> dict[str, str]:
    """Of a registered version: what binds it to a file and to a budget."""
    tags = {
        "sha256": chosen.sha256,
        "status": result.status.value if fallback is None else f"fallback-{fallback}",
        "variant": chosen.id,
        "recipe": recipe_text(chosen.recipe),
        "budget_version": "" if result.budget_version is None else str(result.budget_version),
        "budget_digest": digest(result.budget.to_json())[:12],
        "verdict": chosen.verdict.overall.value if chosen.verdict else "",
        "objective": ", ".join(result.objectives),
        "hardware": str(result.environment.get("fingerprint", "")),
        "cpu": str(result.environment.get("cpu", "")),
    }
    tags |= {f"budget.{limit.axis}": limit.text for limit in result.budget.limits}
    return {name: cut(value) for name, value in tags.items() if value}


def operator_table(result: StudyResult) -> dict[str, list[Any]]:
    """Operators of the baseline and the chosen variant, as ``pandas.read_json(orient="split")`` takes a table."""
    sides = {"baseline": result.baseline, "best" if result.best else "nearest": result.chosen}
    data = [
        [side, row.operator, row.provider, row.dtype, row.weights, row.count, 1e3 * row.seconds, table.share(row)]
        for side, found in sides.items()
        if found is not None and (table := found.operators) is not None
        for row in table.rows
    ]
    columns = ["variant", "operator", "provider", "dtype", "weights", "count", "time_ms", "share"]
    return {"columns": columns, "data": data}
