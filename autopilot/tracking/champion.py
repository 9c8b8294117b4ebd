"""Who is champion: what is known of the one so far, and what was decided about the new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.tracking.read import fetch_model
from autopilot.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION, PREVIOUS = "champion", "previous"


@dataclass(frozen=True, slots=True)
class Champion:
    """The registered version that has the alias ``champion`` now."""

    name: str
    version: int
    tags: Mapping[str, str]

    def fetch(self, client: MlflowClient, store: Store, folder: Path) -> Path:
        """Its bundle (model, variant.json) as a folder under ``folder``, which is emptied first.

        Raises:
            BadInput: its files are gone, or hold no ONNX model.
        """
        return fetch_model(client, store, f"models:/{self.name}/{self.version}", folder).parent


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whether a winner becomes champion, and why (or why not), in a sentence.

    ``keeps_previous``: the alias ``previous`` stays where it is, since the champion so far is the same thing.
    """

    crown: bool
    reason: str
    keeps_previous: bool = False


def champion_of(client: MlflowClient, name: str) -> Champion | None:
    """The champion of the registered model ``name``; None where there is no such model or alias."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as exc:
        if exc.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return Champion(name, int(found.version), dict(found.tags))


def crown(client: MlflowClient, name: str, version: int, *, keeps_previous: bool = False) -> None:
    """Make a version ``champion`` and the champion before it ``previous``."""
    new = str(version)
    before = client.get_registered_model(name).aliases.get(CHAMPION)
    if before is not None and str(before) != new and not keeps_previous:
        client.set_registered_model_alias(name, PREVIOUS, str(before))
    client.set_registered_model_alias(name, CHAMPION, new)
