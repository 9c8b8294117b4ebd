"""The winner as a logged model with a signature, and its versions and aliases in the registry."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopilot.contracts import Array
from autopilot.result import Candidate, StudyResult
from autopilot.temporary import temporary_folder
from autopilot.tracking import fields
from autopilot.tracking.describe import best_why, describe, model_text
from autopilot.tracking.requirements import requirements, say_by_hand
from autopilot.tracking.store import global_store, prepare_mlflow

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature
    from mlflow.tracking import MlflowClient

FALLBACK = "fallback-"  # and its place on the ladder
# Numbers in an input example. It is stored as text, twice, some 20 bytes a number: 8 MB.
_LARGEST_EXAMPLE = 200_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One variant of a study for the registry: the winner, or with ``fallback`` (1 is the first) a rung below.

    ``spec_sha256`` is the digest of the spec's text, ``example`` model inputs by name, as the model takes them.
    """

    result: StudyResult
    folder: Path
    fallback: int | None = None
    spec_sha256: str = ""
    example: Mapping[str, Array] | None = None

    @property
    def candidate(self) -> Candidate:
        """What is registered."""
        found = self.result.chosen if self.fallback is None else self.result.fallbacks[self.fallback - 1].candidate
        assert found is not None
        return found

    @property
    def tags(self) -> dict[str, str]:
        """What binds the version to its file and the budget."""
        own = {"spec_sha256": self.spec_sha256} if self.spec_sha256 else {}
        return fields.version_tags(self.result, self.candidate, fallback=self.fallback) | own

    @property
    def description(self) -> str:
        """A version's text in the UI."""
        if self.fallback is None:
            return describe(self.result, self.candidate, best_why(self.result, self.candidate))
        rung = self.result.fallbacks[self.fallback - 1]
        sure = "" if rung.verified else " Measured once, in the search."
        return describe(self.result, self.candidate, f"fallback {self.fallback}, {rung.reason}.{sure}")


def log_model(client: MlflowClient, experiment_id: str, run_id: str, entry: Entry) -> str:
    """Log an entry's bundle as a model of the run; the model's id.

    The model is its files plus the name of our loader module: nothing is pickled, and the
    requirements are written down, not inferred (which would run the model).
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    chosen = entry.candidate
    model = client.create_logged_model(
        experiment_id,
        name="model" if entry.fallback is None else f"{FALLBACK}{entry.fallback}",
        source_run_id=run_id,
        tags=entry.tags,
        params=fields.variant_params(chosen.recipe, chosen.deployment),
        model_type="onnx",
    )
    with temporary_folder("mlflow") as scratch:
        target = scratch / "model"
        own = Model(
            artifact_path=model.artifact_location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id
        )
        _save(target, entry, own)
        client.log_model_artifacts(model.model_id, str(target))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def registered_version(client: MlflowClient, run_id: str, entry: Entry) -> int | None:
    """The version that this run has registered already, if any, brought up to date.

    Before it was cut off; or for an earlier result, whose study went on: then it may be called another rung's there,
    and bound to another version of the budget.
    """
    wanted = {key: entry.tags[key] for key in ("sha256", "variant")}  # two deployments may share a file
    for known in client.search_model_versions(f"run_id = '{run_id}'"):
        if known.name == entry.result.registered_name and wanted.items() <= known.tags.items():
            for key, value in entry.tags.items():
                if known.tags.get(key) != value:
                    client.set_model_version_tag(known.name, known.version, key, value)
            client.update_model_version(known.name, known.version, entry.description)
            return int(known.version)
    return None


def register(client: MlflowClient, run_id: str, model_id: str, entry: Entry) -> int:
    """Register the logged model under the study's name; the version."""
    from mlflow.exceptions import MlflowException

    name = entry.result.registered_name
    try:
        client.create_registered_model(name, description=model_text(entry.result))
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


def place_fallbacks(client: MlflowClient, name: str, versions: Sequence[int]) -> None:
    """Give ``fallback-1``, ``fallback-2``, … to ``versions`` in their order; further ones of an earlier study go."""
    for place, number in enumerate(versions, 1):
        client.set_registered_model_alias(name, f"{FALLBACK}{place}", str(number))
    kept = {f"{FALLBACK}{place}" for place in range(1, len(versions) + 1)}
    for alias in client.get_registered_model(name).aliases:
        if alias.removeprefix(FALLBACK).isdigit() and alias not in kept:
            client.delete_registered_model_alias(name, alias)


def _save(target: Path, entry: Entry, model: Model) -> None:
    prepare_mlflow()
    import mlflow.pyfunc

    variant: dict[str, Any] = json.loads((entry.folder / "variant.json").read_text(encoding="utf-8"))
    signature = _signature(variant)
    provider = entry.candidate.deployment.provider
    with _no_project_files(), warnings.catch_warnings():
        # The signature comes from the model file itself, with or without an example.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.save_model(
            str(target),
            loader_module="autopilot.serving",
            data_path=str(entry.folder),
            mlflow_model=model,
            signature=signature,
            input_example=example_of(entry.example, signature),
            pip_requirements=requirements(provider),
        )
    say_by_hand(provider, target)


def example_of(inputs: Mapping[str, Array] | None, signature: ModelSignature | None) -> dict[str, Array] | None:
    """``inputs`` as MLflow keeps an example: those of the signature, numbers only, as long as it stays small."""
    if inputs is None or signature is None:
        return None
    named = {name: inputs[name] for name in signature.inputs.input_names() if name in inputs}
    numeric = all(value.dtype.kind in "biuf" for value in named.values())
    small = sum(value.size for value in named.values()) <= _LARGEST_EXAMPLE
    return named if named and numeric and small else None


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
