"""The build cache: one folder a step, named by everything that its result depends on.

An entry holds ``model.onnx``, external data beside it, and ``meta.json``; of a deterministic
failure only ``meta.json``. It is written elsewhere and renamed, so that it is whole or not there;
its digest is checked whenever it is taken, and a damaged one is built again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from autopilot.artifact import Artifact
from autopilot.contracts import Technique
from autopilot.domain import Scalar
from autopilot.errors import AutopilotError, Failure, Unsupported, VariantFailed
from autopilot.recipe import Step, digest, params_of

# Raise it when entries of an earlier layout can't be read any more.
_SCHEMA = 1
_META = "meta.json"
# A killed build leaves its staging folder; no step takes this long.
_ABANDONED_S = 6 * 3600.0


def complete(technique: Technique, step: Step) -> Step:
    """``step`` with every parameter: declared defaults filled in, then normalised.

    Raises:
        Unsupported: a parameter that the technique doesn't declare, or a value outside its domain.
    """
    values: dict[str, Scalar] = {name: domain.default for name, domain in technique.parameters.items()}
    for name, value in step.params:
        domain = technique.parameters.get(name)
        if domain is None or not domain.contains(value):
            raise Unsupported(f"{technique.name} takes no {name}: {value!r}.", "See docs/techniques.md.")
        values[name] = value
    return Step(step.technique, params_of(technique.normalise(values)))


def step_key(
    technique: Technique,
    step: Step,
    *,
    parent: str,
    calibration: str | None,
    is_classification: bool,
    training: str | None = None,
) -> str:
    """Hex digest of everything that the result of a complete ``step`` depends on.

    ``parent`` is the sha256 of what it starts from, ``calibration`` the split's digest, ``training`` that of
    the training data and the PyTorch model. Data count only where the technique uses them.
    """
    data = [calibration, is_classification] if technique.needs_calibration else None
    libraries = {name: _version(name) for name in sorted(technique.libraries)}
    told: list[Any] = [_SCHEMA, parent, technique.name, technique.version, step.to_json(), data, libraries]
    return digest([*told, training, is_classification] if technique.needs_training else told)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Cache:
    """Steps built before, under ``folder``."""

    folder: Path

    @property
    def scratch(self) -> Path:
        """What techniques keep between builds (calibration tables), keyed by themselves."""
        return self.folder / "scratch"

    def take(self, key: str, *, parent: str, step: Step) -> Artifact | None:
        """The artifact built under ``key``; None when there is none or it is damaged.

        Raises:
            VariantFailed: building it failed before in a way that would repeat.
        """
        meta = self._meta(key)
        if meta is None:
            return None
        if "failure" in meta:
            raise _failure(meta["failure"])
        files = [self.folder / key / name for name in meta["files"]]
        try:
            artifact = Artifact.of(files, parent=parent, step=step)
        except OSError:
            artifact = None
        if artifact is None or artifact.sha256 != meta["sha256"]:
            shutil.rmtree(self.folder / key, ignore_errors=True)
            return None
        return artifact

    def _meta(self, key: str) -> dict[str, Any] | None:
        try:
            meta: dict[str, Any] = json.loads((self.folder / key / _META).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return meta if "failure" in meta or {"files", "sha256"} <= set(meta) else None

    def put(self, key: str, built: Path, *, parent: str, step: Step) -> Artifact:
        """Keep the folder ``built`` (``model.onnx`` first, all other files after) under ``key``."""
        files = sorted((f for f in built.iterdir() if f.is_file()), key=lambda f: (f.name != "model.onnx", f.name))
        artifact = Artifact.of(files, parent=parent, step=step)
        names = [f.name for f in files]
        self._keep(key, built, {"files": names, "sha256": artifact.sha256, "parent": parent, "step": step.to_json()})
        kept = self.take(key, parent=parent, step=step)
        if kept is None:
            raise AutopilotError(
                f"{self.folder / key}: what was just built there is gone or changed.", "Is the disk full?"
            )
        return kept

    def put_failure(self, key: str, error: VariantFailed, *, parent: str, step: Step) -> None:
        """Remember that building ``key`` fails."""
        failure = {
            "failure": error.failure.value,
            "message": error.message,
            "hint": error.hint,
        }
        with self.staging() as folder:
            empty = folder / "failed"
            empty.mkdir()
            self._keep(key, empty, {"failure": failure, "parent": parent, "step": step.to_json()})

    def _keep(self, key: str, built: Path, meta: Mapping[str, Any]) -> None:
        (built / _META).write_text(json.dumps({"schema": _SCHEMA, **meta}, indent=1), encoding="utf-8")
        target = self.folder / key
        try:
            built.rename(target)
        except OSError:
            if self._meta(key) is not None:
                return  # another process was faster, and somebody may be reading its result
            shutil.rmtree(target, ignore_errors=True)
            built.rename(target)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder on the same file system to build in; gone afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="staging-", dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed builds have left."""
        oldest = time.time() - _ABANDONED_S
        for folder in self.folder.glob("staging-*"):
            with contextlib.suppress(OSError):
                if os.stat(folder).st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)


def _failure(value: Mapping[str, str]) -> VariantFailed:
    if value["failure"] == Failure.UNSUPPORTED:
        return Unsupported(value["message"], value["hint"])
    return VariantFailed(Failure(value["failure"]), value["message"], value["hint"])
