"""A study's trials as flat rows: the columns of trials.csv and of ``trials_dataframe()``."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from autopilot.recipe import Recipe
from autopilot.result.jsonable import plain

if TYPE_CHECKING:
    from autopilot.result.study import StudyResult
    from autopilot.result.trial import TrialRecord

_HEAD = ("number", "id", "state", "failure", "stage", "reason", "recipe", "provider", "threads", "batch")


def recipe_text(recipe: Recipe) -> str:
    """A recipe in one line for people.

    >>> from autopilot.recipe import Step
    >>> recipe_text(Recipe((Step("fuse"), Step("static_int8", (("per_channel", True),)))))
    'fuse > static_int8(per_channel=True)'
    """
    steps = [
        f"{s.technique}({', '.join(f'{k}={v}' for k, v in s.params)})" if s.params else s.technique
        for s in recipe.steps
    ]
    return " > ".join(steps) or "as given"


def trial_rows(result: StudyResult) -> tuple[list[str], list[dict[str, Any]]]:
    """Column names in order, and one row a trial with a value (or None) in every column.

    Axes with a limit come first in the budget's order, then the objectives, then the others in alphabetical
    order, so that the same spec gives the same columns whatever its trials measured. ``verdict`` is the search's,
    ``verified`` that of the second measurement of those that had one. ``pareto`` is yes for trials on the front,
    ``place`` best, nearest or fallback-1, fallback-2, … for those the result speaks about.
    """
    axes = _axes(result)
    related = {axis for t in result.trials for axis, m in t.measured.items() if m.ratio}
    options = sorted({name for t in result.trials for name, _ in t.variant.deployment.options})
    stages = sorted({stage for t in result.trials for stage in t.seconds})
    served = dict.fromkeys(name for t in result.trials for name in t.variant.deployment.serving_json())
    columns = [*_HEAD, *served, *options]
    for axis in axes:
        columns += [axis, f"{axis}_low", f"{axis}_high"]
        if axis in related:
            columns += [f"{axis}_ratio", f"{axis}_ratio_low", f"{axis}_ratio_high"]
        if axis in result.budget.axes:
            columns.append(f"{axis}_verdict")
    columns += [
        "verdict",
        "verified",
        "pareto",
        "place",
        *(f"seconds_{stage}" for stage in stages),
        "sha256",
        "warnings",
    ]
    places = _places(result)
    rows = [{**dict.fromkeys(columns), **_row(trial)} for trial in result.trials]
    for row in rows:
        row["pareto"] = row["id"] in result.pareto and row["state"] != "duplicate"
        row["place"] = places.get(row["number"])
    return columns, rows


def _places(result: StudyResult) -> dict[int | None, str]:
    """What the result says of some trials, by number."""
    places = {rung.candidate.number: f"fallback-{place}" for place, rung in enumerate(result.fallbacks, 1)}
    if result.chosen is not None:
        places[result.chosen.number] = "best" if result.best else "nearest"
    return places


def trials_csv(result: StudyResult) -> str:
    """The text of trials.csv: one row a trial, an empty field where there is no value."""
    columns, rows = trial_rows(result)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _axes(result: StudyResult) -> list[str]:
    limited = list(dict.fromkeys([*result.budget.axes, *result.objectives]))
    measured = {axis for t in result.trials for axis in t.measured}
    return limited + sorted(measured - set(limited))


def _row(trial: TrialRecord) -> dict[str, Any]:
    deployment = trial.variant.deployment
    row: dict[str, Any] = {
        "number": trial.number,
        "id": trial.id,
        "state": trial.state.value,
        "failure": trial.failure.value if trial.failure else None,
        "stage": trial.stage,
        "reason": trial.reason or None,
        "recipe": recipe_text(trial.variant.recipe),
        **deployment.to_json(),
        "sha256": trial.artifact.sha256 if trial.artifact else None,
        "warnings": " | ".join(trial.warnings) or None,
    }
    for axis, m in trial.measured.items():
        row |= {axis: m.value, f"{axis}_low": m.low, f"{axis}_high": m.high}
        if m.ratio:
            row |= {
                f"{axis}_ratio": m.ratio.value,
                f"{axis}_ratio_low": m.ratio.low,
                f"{axis}_ratio_high": m.ratio.high,
            }
    if trial.verdict:
        row |= {f"{axis}_verdict": j.value for axis, j in trial.verdict.per_limit.items()}
        row["verdict"] = trial.verdict.overall.value
    if trial.verified:
        row["verified"] = trial.verified.overall.value
    row |= {f"seconds_{stage}": s for stage, s in trial.seconds.items()}
    flat: dict[str, Any] = plain(row)
    return flat
