"""A link into MLflow's table of runs that shows the columns which matter for a budget. Pure.

MLflow 3 keeps what its "Share" button shares as JSON in a tag of the experiment, and a link names the tag
(``ExperimentGetShareLinkModal.tsx``). So a view can be made without a browser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autopilot.tracking.history import Goal

VIEW = "autopilot"
# Read by the page when the link says ``viewStateShareKey=autopilot``.
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# Without it MLflow 3 guesses what an experiment is for, and may open pages on language models.
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}


def columns(axes: Sequence[str]) -> list[str]:
    """Keys of the columns, as MLflow's table names them: ``metrics.`size_mb```.

    ``axes``: the objectives, then the budget's.
    """
    # No recipe: a run's name says of it what tells trials apart, and stands in front of all columns.
    keys = ["tags.`place`", "tags.`verdict`", "tags.`state`"]
    keys += [f"metrics.`{axis}`" for axis in dict.fromkeys(axes)]
    return [*keys, "params.`provider`", "params.`threads`", "tags.`failure`"]


def view_state(goals: Sequence[Goal], axes: Sequence[str], run_id: str) -> str:
    """The tag's text: the trials of the study ``run_id``, best first, with columns for its ``goals`` and ``axes``."""
    state: dict[str, Any] = {
        "selectedColumns": columns([*(goal.axis for goal in goals), *axes]),
        # The parent's row would hide the trials under a fold, which a shared view can't open.
        "searchFilter": f"tags.`mlflow.parentRunId` = '{run_id}'",
    }
    if goals:
        state |= {"orderByKey": f"metrics.`{goals[0].axis}`", "orderByAsc": not goals[0].maximize}
    return json.dumps(state)


def runs_link(address: str, experiment_id: str) -> str:
    """Where the table of an experiment's runs is in the UI at ``address``, with those columns."""
    return f"{address}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
