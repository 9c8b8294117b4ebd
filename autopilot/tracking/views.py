"""A link into MLflow's table of runs that shows the columns which matter for a budget. Pure.

MLflow 3 keeps what its "Share" button shares as JSON in a tag of the experiment, and a link names the tag
(``ExperimentGetShareLinkModal.tsx``). So a view can be made without a browser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

VIEW = "autopilot"
# Read by the page when the link says ``viewStateShareKey=autopilot``.
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# Without it MLflow 3 guesses what an experiment is for, and may open pages on language models.
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}


def columns(axes: Sequence[str]) -> list[str]:
    """Keys of the columns, as MLflow's table names them: ``metrics.`size_mb```.

    ``axes``: the objectives, then the budget's.
    """
    keys = ["tags.`verdict`", "tags.`state`", "params.`recipe`"]
    for axis in dict.fromkeys(axes):
        keys.append(f"metrics.`{axis}`")
    first = f"metrics.`{axes[0]}_ratio`" if axes else None
    keys += [first] if first else []
    return [*keys, "params.`provider`", "params.`threads`", "tags.`stage`", "tags.`failure`", "attributes.`Duration`"]


def view_state(axes: Sequence[str]) -> str:
    """The tag's text."""
    return json.dumps({"selectedColumns": columns(axes), "orderByKey": "attributes.start_time", "orderByAsc": False})


def runs_link(address: str, experiment_id: str) -> str:
    """Where the table of an experiment's runs is in the UI at ``address``, with those columns."""
    return f"{address}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}"
