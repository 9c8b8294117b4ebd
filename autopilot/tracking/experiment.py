"""An experiment and the parent run in it: made, or opened again."""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import autopilot
from autopilot.errors import AutopilotError
from autopilot.tracking import fields
from autopilot.tracking.store import Store
from autopilot.tracking.views import KIND_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


def open_run(client: MlflowClient, run_id: str | None) -> Run | None:
    """The run to go on with, set to RUNNING again; None where the store has it no more."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as exc:
        if exc.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    if run.info.lifecycle_stage != "active":
        return None
    client.update_run(run_id, status="RUNNING")
    return run


def open_experiment(client: MlflowClient, store: Store, name: str) -> str:
    """The id of the experiment called ``name``, made where there is none.

    Raises:
        AutopilotError: it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        folder = store.artifacts
        location = (folder / _folder_name(name)).as_uri() if folder else None
        return str(client.create_experiment(name, artifact_location=location, tags=dict(KIND_TAG)))
    if found.lifecycle_stage != "active":
        raise AutopilotError(
            f"the MLflow experiment {name!r} in {store.shown} was deleted.",
            f"Choose another name: in the spec, or run `mlflow experiments restore -x {found.experiment_id}`.",
        )
    return str(found.experiment_id)


def parent_name(name: str) -> str:
    """The parent run's name: the study and the time."""
    return f"{fields.cut(name, 150)} {time.strftime('%Y-%m-%d %H:%M')}"


def source_tags() -> dict[str, str]:
    """Who started a run, and what."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user in the container
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": "autopilot", "mlflow.source.type": "LOCAL"}


def start_tags(environment: Mapping[str, Any], spec_sha256: str) -> dict[str, str]:
    """Of a parent run that begins: what it was started with and on."""
    tags = {"autopilot.version": autopilot.__version__, "spec_sha256": spec_sha256}
    return {**tags, **source_tags(), **fields.environment_tags(environment)}


def _folder_name(name: str) -> str:
    """``name`` as one folder's name, unambiguous enough: run ids in it are unique anyway."""
    text = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".")
    return text[:100] or "experiment"
