"""The winner as a logged model with a signature, and its versions and aliases in the registry."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import autopilot
from autopilot.result import Candidate, StudyResult, recipe_text, speed_axis
from autopilot.tracking import fields
from autopilot.tracking.store import global_store, prepare_mlflow

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.tracking import MlflowClient

CHAMPION, PREVIOUS = "champion", "previous"
FALLBACK = "fallback-"  # and its place on the ladder
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True)
class Entry:
    """One variant of a study for the registry: the winner, or with ``fallback`` (1 is the first) a rung below."""

    result: StudyResult
    folder: Path
    fallback: int | None = None

    @property
    def candidate(self) -> Candidate:
        """What is registered."""
        found = self.result.chosen if self.fallback is None else self.result.fallbacks[self.fallback - 1].candidate
        assert found is not None
        return found

    @property
    def tags(self) -> dict[str, str]:
        """What binds the version to its file and the budget."""
        return fields.version_tags(self.result, self.candidate, fallback=self.fallback)

    @property
    def description(self) -> str:
        """A version's text in the UI."""
        if self.fallback is None:
            return _description(self.result, self.candidate)
        rung = self.result.fallbacks[self.fallback - 1]
        sure = "" if rung.verified else " Measured once, in the search."
        return f"{recipe_text(self.candidate.recipe)}. Fallback {self.fallback}: {rung.reason}.{sure}"


def log_model(client: MlflowClient, experiment_id: str, run_id: str, entry: Entry) -> str:
    """Log an entry's bundle as a model of the run; the model's id.

    The model is its files plus the name of our loader module: nothing is pickled, and the
    requirements are written down, not inferred (which would run the model).
    """
    from mlflow.entities import LoggedModelOutput

    chosen = entry.candidate
    model = client.create_logged_model(
        experiment_id,
        name="model" if entry.fallback is None else f"{FALLBACK}{entry.fallback}",
        source_run_id=run_id,
        tags=entry.tags,
        params=fields.variant_params(chosen.recipe, chosen.deployment),
        model_type="onnx",
    )
    with tempfile.TemporaryDirectory(prefix="autopilot-") as scratch:
        target = Path(scratch) / "model"
        _save(target, entry.folder, run_id=run_id, model_id=model.model_id, location=model.artifact_location)
        client.log_model_artifacts(model.model_id, str(target))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def registered_version(client: MlflowClient, run_id: str, entry: Entry) -> int | None:
    """The version that this run has registered already (before it was cut off), if any."""
    wanted = {key: entry.tags[key] for key in ("sha256", "variant")}  # two deployments may share a file
    for known in client.search_model_versions(f"run_id = '{run_id}'"):
        if known.name == entry.result.registered_name and wanted.items() <= known.tags.items():
            return int(known.version)
    return None


def register(client: MlflowClient, run_id: str, model_id: str, entry: Entry) -> int:
    """Register the logged model under the study's name; the version."""
    from mlflow.exceptions import MlflowException

    name = entry.result.registered_name
    try:
        client.create_registered_model(name)
    except MlflowException as exc:
        if exc.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
    with global_store(client.tracking_uri):
        made = client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=run_id,
            model_id=model_id,
            tags=entry.tags,
            description=entry.description,
        )
    return int(made.version)


def crown(client: MlflowClient, name: str, version_number: int) -> None:
    """Make a version ``champion`` and the champion before it ``previous``."""
    new = str(version_number)
    before = client.get_registered_model(name).aliases.get(CHAMPION)
    if before is not None and str(before) != new:
        client.set_registered_model_alias(name, PREVIOUS, str(before))
    client.set_registered_model_alias(name, CHAMPION, new)


def place_fallbacks(client: MlflowClient, name: str, versions: Sequence[int]) -> None:
    """Give ``fallback-1``, ``fallback-2``, … to ``versions`` in their order; further ones of an earlier study go."""
    for place, number in enumerate(versions, 1):
        client.set_registered_model_alias(name, f"{FALLBACK}{place}", str(number))
    kept = {f"{FALLBACK}{place}" for place in range(1, len(versions) + 1)}
    for alias in client.get_registered_model(name).aliases:
        if alias.removeprefix(FALLBACK).isdigit() and alias not in kept:
            client.delete_registered_model_alias(name, alias)


def _description(result: StudyResult, chosen: Candidate) -> str:
    text = f"{recipe_text(chosen.recipe)} on {chosen.deployment.provider}, {chosen.deployment.threads} thread(s)."
    if chosen.speedup:
        text += f" {speed_axis(result.objectives)}: {chosen.speedup.value:.2f} times better than the model as given."
    return text


def _save(target: Path, folder: Path, *, run_id: str, model_id: str, location: str) -> None:
    prepare_mlflow()
    import mlflow.pyfunc
    from mlflow.models import Model

    variant: dict[str, Any] = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
    with _no_project_files(), warnings.catch_warnings():
        # An input example would be stored for nothing: the signature comes from the model file itself.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.save_model(
            str(target),
            loader_module="autopilot.serving",
            data_path=str(folder),
            mlflow_model=Model(artifact_path=location, run_id=run_id, model_uuid=model_id, model_id=model_id),
            signature=_signature(variant),
            pip_requirements=requirements(),
        )


@contextmanager
def _no_project_files() -> Iterator[None]:
    """Keep mlflow from copying the user's uv.lock and pyproject.toml into the model."""
    before = os.environ.get("MLFLOW_UV_AUTO_DETECT")
    os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_UV_AUTO_DETECT"]
        else:
            os.environ["MLFLOW_UV_AUTO_DETECT"] = before


def requirements() -> list[str]:
    """What loading the model needs, at the versions it was measured with."""
    pinned = [f"model-autopilot=={autopilot.__version__}"]
    for name in (*_RUNTIMES, "numpy"):
        try:
            pinned.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return pinned


def _signature(variant: Mapping[str, Any]) -> ModelSignature | None:
    """Tensor signature of the model; inputs that are constants need not be given, so they are left out.

    None where numpy has no such type (bfloat16), since MLflow couldn't read the signature back.
    """
    from mlflow.models import ModelSignature

    mapping = (variant.get("preprocessing") or {}).get("inputs") or {}
    inputs = [t for t in variant["inputs"] if (mapping.get(t["name"]) or {}).get("constant") is None]
    try:
        return ModelSignature(inputs=_schema(inputs), outputs=_schema(variant["outputs"]))
    except TypeError:
        return None


def _schema(tensors: Sequence[Mapping[str, Any]]) -> Any:
    from mlflow.types import Schema, TensorSpec

    return Schema(
        [
            TensorSpec(np.dtype(t["dtype"]), tuple(d if isinstance(d, int) else -1 for d in t["shape"]), t["name"])
            for t in tensors
        ]
    )
