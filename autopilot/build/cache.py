"""The build cache: one folder a step, named by everything that its result depends on.

An entry holds ``model.onnx``, external data beside it, and ``meta.json``; of a deterministic
failure only ``meta.json``. It is written elsewhere and renamed, so that it is whole or not there;
digests of all its files are checked whenever it is taken, and a damaged one is built again.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from autopilot.artifact import Artifact
from autopilot.cache import CacheFolder, Lease, SharedCache
from autopilot.cache.code import code_digest
from autopilot.cache.entries import META, STAGING
from autopilot.cache.folder import DIR_VARIABLE
from autopilot.cache.sealed import opened_json, sealed_json, used
from autopilot.contracts import Technique
from autopilot.domain import Scalar
from autopilot.errors import AutopilotError, Failure, Unsupported, VariantFailed
from autopilot.recipe import Step, digest, params_of
from autopilot.target import cpu_flags, cpu_model

# Raise it when entries of an earlier layout can't be read any more.
_SCHEMA = 2
# An unexpected exception may be the machine's (a library that was just being installed): the same build is tried
# again after a day. What is unsupported stays so for as long as code, libraries and model are the same.
_ERROR_HOLDS_S = 86400.0
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})


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
    made_by = [technique.name, technique.version, _code(technique), libraries]
    told: list[Any] = [_SCHEMA, parent, made_by, step.to_json(), data, _machine() if technique.machine_bound else None]
    return digest([*told, training, is_classification] if technique.needs_training else told)


def _code(technique: Technique) -> str:
    """Digest of the code that ``apply`` runs: its module, of our own techniques all helpers too."""
    module = getattr(technique.apply, "__module__", None) or type(technique.apply).__module__
    if not module.startswith("autopilot."):
        return code_digest(module)
    more = ("autopilot.torch_model",) if technique.needs_training or "torch" in technique.libraries else ()
    return code_digest("autopilot.techniques", "autopilot.model", *more)


@cache
def _machine() -> tuple[str, tuple[str, ...]]:
    return cpu_model(), cpu_flags()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Cache:
    """Steps built before, under ``root``; with a ``lease`` nobody removes what was taken from here.

    ``limit_bytes``: what all of ``root`` may take; None for no limit.
    """

    root: Path
    lease: Lease | None = None
    limit_bytes: int | None = None

    @classmethod
    def of(cls, shared: SharedCache) -> Cache:
        """The builds in ``shared``."""
        return cls(shared.folder.root, shared.lease, shared.limit_bytes)

    @property
    def folder(self) -> Path:
        return CacheFolder(self.root).builds

    @property
    def scratch(self) -> Path:
        """What techniques keep between builds (calibration tables), keyed by themselves."""
        return CacheFolder(self.root).scratch

    def take(self, key: str, *, parent: str, step: Step) -> Artifact | None:
        """The artifact built under ``key``; None when there is none or it is damaged.

        Raises:
            VariantFailed: building it failed before in a way that would repeat.
            AutopilotError: the cache can't be read or written.
        """
        with self._told():
            self._pin(key)
            meta = self._meta(key)
            if meta is None:
                return None
            if "failure" in meta:
                self._take_failure(key, meta)
                return None
            artifact = self._artifact(key, meta, parent=parent, step=step)
            if artifact is None:
                self._remove(key)
                return None
            used(self.folder / key / META)
            return artifact

    def price_s(self, key: str) -> float:
        """Seconds that it once took to build what is under ``key``; 0 where that isn't known."""
        meta = self._meta(key)
        return float(meta.get("took_s", 0.0)) if meta is not None else 0.0

    def _artifact(self, key: str, meta: Mapping[str, Any], *, parent: str, step: Step) -> Artifact | None:
        files = [self.folder / key / name for name in meta["files"]]
        try:
            artifact = Artifact.of(files, parent=parent, step=step)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return artifact if artifact.sha256 == meta["sha256"] else None

    def _take_failure(self, key: str, meta: Mapping[str, Any]) -> None:
        failure = _failure(meta["failure"])
        age_s = time.time() - float(meta["made_s"])
        if failure.failure is Failure.BUILD_ERROR and not 0 <= age_s < _ERROR_HOLDS_S:
            self._remove(key)
            return
        used(self.folder / key / META)
        raise failure

    def _meta(self, key: str) -> dict[str, Any] | None:
        """What was written of ``key``; None where nothing was, or not this."""
        return opened_json(self.folder / key / META)

    def put(self, key: str, built: Path, *, parent: str, step: Step, took_s: float = 0.0) -> Artifact:
        """Keep the folder ``built`` (``model.onnx`` first, all other files after) under ``key``.

        Raises:
            AutopilotError: there is no room, or what was put there changes by itself.
        """
        files = sorted((f for f in built.iterdir() if f.is_file()), key=lambda f: (f.name != "model.onnx", f.name))
        artifact = Artifact.of(files, parent=parent, step=step)
        names = [f.name for f in files]
        meta = {"files": names, "sha256": artifact.sha256, "parent": parent, "step": step.to_json(), "took_s": took_s}
        # Twice: what another process has put there meanwhile may be damaged; taking it removes it then.
        for _ in range(2):
            self._keep(key, built, meta)
            kept = self.take(key, parent=parent, step=step)
            if kept is not None:
                return kept
        raise AutopilotError(f"{self.folder / key}: what was just built there is gone or changed.", "Is the disk full?")

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
        with self._told():
            self._pin(key)
            if not built.exists():
                return
            text = sealed_json({"schema": _SCHEMA, "made_s": time.time(), **meta})
            (built / META).write_text(text, encoding="utf-8")
            try:
                built.rename(self.folder / key)
            except OSError as exc:
                if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                if self._meta(key) is not None:
                    return  # another process was faster, and somebody may be reading its result
                self._remove(key)
                built.rename(self.folder / key)

    def tidy(self) -> None:
        """Keep to the limit; trouble with that can wait, since nothing is lost by it."""
        SharedCache(CacheFolder(self.root), self.lease, self.limit_bytes).tidy()

    def _remove(self, key: str) -> None:
        """Take a damaged entry out of the way in one step: nobody sees half of it."""
        with self.staging() as folder, contextlib.suppress(FileNotFoundError):
            (self.folder / key).rename(folder / key)

    def _pin(self, name: str) -> None:
        if self.lease is not None:
            self.lease.pin(name)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder on the same file system to build in; gone afterwards.

        Raises:
            AutopilotError: it can't be made.
        """
        folder = self.folder / f"{STAGING}{uuid.uuid4().hex}"
        with self._told():
            self._pin(folder.name)  # first: what is there and not named is a killed build's
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Trouble with the folder as one of our errors; what isn't about room or rights is passed on."""
        try:
            yield
        except OSError as exc:
            if exc.errno in NO_ROOM:
                raise no_room(self.root, exc) from exc
            raise


def no_room(root: Path, exc: OSError) -> AutopilotError:
    """The error for a cache (or a folder in it) that can't be written."""
    return AutopilotError(
        f"can't write to {root} ({exc.strerror}).",
        f"Free some space there (autopilot cache clear) or name another folder in {DIR_VARIABLE}.",
    )


def _failure(value: Mapping[str, str]) -> VariantFailed:
    if value["failure"] == Failure.UNSUPPORTED:
        return Unsupported(value["message"], value["hint"])
    return VariantFailed(Failure(value["failure"]), value["message"], value["hint"])
