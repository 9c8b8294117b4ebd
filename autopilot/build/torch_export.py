"""The parent's part of taking a PyTorch model: exported once in a child process, kept by content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autopilot.artifact import sha256_file
from autopilot.bench.child import ChildLimits, run_child
from autopilot.errors import ModelError, VariantFailed
from autopilot.recipe import digest
from autopilot.temporary import sweep, temporary_folder
from autopilot.torch_model import INSTALL, missing
from autopilot.torch_model.load import code_digest

if TYPE_CHECKING:
    from autopilot.data.example import Example
    from autopilot.spec import TorchSource

# Raise it when exports of an earlier version must not be used again.
_VERSION = 1
_LIBRARIES = ("torch", "onnx", "onnxscript", "onnx-ir")
_MODEL, _NOTE = "model.onnx", "export.json"
# Samples that the export is checked with.
EXAMPLE_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class TorchExport:
    """The ONNX file, and what the user should know about how it came about (or nothing)."""

    path: Path
    note: str


def sweep_exports(folder: Path) -> None:
    """Remove from ``folder`` what exports left that were killed; those of living processes stay.

    For a run's folder, which its run holds: what versions before this one left has no lock of its own.
    """
    sweep(folder, older="staging-|example-")


def source_digest(source: TorchSource) -> str:
    """Hex sha256 of a PyTorch model's files; of its code, every Python file of the folder and what it imports."""
    if source.program is not None:
        return sha256_file(source.program)
    assert source.code is not None
    assert source.weights is not None
    return digest([code_digest(source.code), sha256_file(source.weights)])


def student_digest(source: TorchSource) -> str | None:
    """Of the user's own student, its code likewise; None where there is none."""
    return code_digest(source.student) if source.student is not None else None


def export_torch(
    source: TorchSource,
    example: Example,
    *,
    folder: Path,
    limits: ChildLimits,
    threads: int,
    progress: Callable[[str], None] | None = None,
) -> TorchExport:
    """The ONNX export of ``source`` under ``folder``, made where it isn't there yet.

    Raises:
        ModelError: torch is missing, the model can't be loaded or exported, or the export answers otherwise.
    """
    check_installed(source)
    content = {name: [str(v.dtype), list(v.shape)] for name, v in sorted(example.feed.items())}
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    key = digest([_VERSION, source_digest(source), content, list(example.per_sample), versions])
    home = folder / f"torch-{key[:16]}"
    done = _known(home)
    if done is not None:
        return done
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder("export", folder) as staging:
        answer = _in_child(source, example, staging, limits, threads, progress)
        (staging / _NOTE).write_text(json.dumps({"note": answer["note"]}), encoding="utf-8")
        shutil.rmtree(home, ignore_errors=True)
        os.replace(staging, home)
    return TorchExport(home / _MODEL, str(answer["note"]))


def check_installed(source: TorchSource) -> None:
    """Refuse a PyTorch model where what reads it is missing.

    Raises:
        ModelError: with the command that installs it.
    """
    needed = ["torch", "onnxscript"]
    if source.weights is not None and source.weights.suffix == ".safetensors":
        needed.append("safetensors")
    lacking = missing(*needed)
    if lacking is not None:
        raise ModelError(f"model: is a PyTorch model ({source.path.name}), and {lacking}", INSTALL)


def export_note(model: Path) -> str:
    """What the user should know of the export that the ONNX file ``model`` came from; empty for other files."""
    known = _known(model.parent)
    return known.note if known is not None else ""


def _known(home: Path) -> TorchExport | None:
    try:
        told = json.loads((home / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return TorchExport(home / _MODEL, str(told["note"])) if (home / _MODEL).is_file() else None


def _in_child(
    source: TorchSource,
    example: Example,
    staging: Path,
    limits: ChildLimits,
    threads: int,
    progress: Callable[[str], None] | None,
) -> dict[str, str]:
    with temporary_folder("example", staging.parent) as scratch:
        stored = scratch / "example.npz"
        np.savez(stored, **dict(example.feed))  # type: ignore[arg-type]  # names of inputs, never "allow_pickle"
        request = {
            "source": source.to_json(),
            "example": str(stored),
            "inputs": list(example.feed),
            "per_sample": list(example.per_sample),
            "target": str(staging / _MODEL),
            "threads": threads,
        }
        try:
            return run_child(
                "autopilot.export_worker", request, limits, workdir=scratch, on_line=progress, threads=threads
            )
        except VariantFailed as exc:
            raise ModelError(
                f"{source.path}: the PyTorch model could not be exported: {exc.message}",
                exc.hint or "Run its code by itself first.",
            ) from exc
