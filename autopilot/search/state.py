"""The run folder's state: which study it belongs to, whether it ended, and who holds it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from autopilot.errors import BadInput


@dataclass(frozen=True, slots=True)
class RunState:
    """What a resume must find unchanged, part by part, so that a change can be named.

    ``study``: its name. ``trials`` and ``timeout_s``: the limits that the run had; None in what older versions left.
    """

    identity: dict[str, str]
    finished: bool = False
    mlflow_run: str | None = None
    elapsed_s: float = 0.0
    study: str = ""
    trials: int | None = None
    timeout_s: float | None = None

    def changed(self, other: dict[str, str]) -> list[str]:
        """Names of the parts that differ."""
        return [key for key in {**self.identity, **other} if self.identity.get(key) != other.get(key)]

    def save(self, folder: Path) -> None:
        """Write ``state.json``, whole or not at all."""
        value = {
            "identity": self.identity,
            "finished": self.finished,
            "mlflow_run": self.mlflow_run,
            "elapsed_s": self.elapsed_s,
            "study": self.study,
            "trials": self.trials,
            "timeout_s": self.timeout_s,
        }
        write_text(folder / "state.json", json.dumps(value, indent=1))

    @classmethod
    def load(cls, folder: Path) -> RunState | None:
        """The state left by an earlier run, or None; a torn file counts as none."""
        try:
            raw: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            return cls(
                dict(raw["identity"]),
                bool(raw["finished"]),
                raw["mlflow_run"],
                float(raw["elapsed_s"]),
                str(raw.get("study", "")),
                raw.get("trials"),
                raw.get("timeout_s"),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def write_text(path: Path, text: str) -> None:
    """Write a file by renaming a finished one over it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


class FolderLock:
    """Holds a run folder for one process; the kernel lets go of it however the process ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> FolderLock:
        try:
            import fcntl
        except ImportError:  # Windows has no flock; two runs on one folder are not guarded there
            return self
        self._file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self._file.close()
            self._file = None
            raise BadInput(
                f"{self._path.parent.parent} is in use by another run.", "Wait for it to end or choose another --out."
            ) from exc
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
