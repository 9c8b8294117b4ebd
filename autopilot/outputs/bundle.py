"""A model with everything needed to run it as it was measured: model.onnx, variant.json, README.md."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.artifact import Artifact, sha256_file
from autopilot.errors import ModelError
from autopilot.outputs.readme import readme
from autopilot.result import Candidate, StudyResult
from autopilot.result.jsonable import plain

if TYPE_CHECKING:
    from autopilot.model import TensorInfo

MODEL_FILE = "model.onnx"
VARIANT_FILE = "variant.json"
README_FILE = "README.md"
SCHEMA = 1


def write_bundle(
    result: StudyResult,
    artifact: Artifact,
    folder: Path,
    *,
    preprocessing: Mapping[str, Any],
    fallback: int | None = None,
) -> str:
    """Write ``result.chosen``, or a fallback (1 is the first), into the empty ``folder``; the model's sha256 there.

    Raises:
        ModelError: the artifact's files are gone or damaged.
    """
    from autopilot.model import inspect

    chosen = result.chosen if fallback is None else result.fallbacks[fallback - 1].candidate
    assert chosen is not None, "a bundle is written of a chosen candidate"
    placed = _copy(artifact, folder)
    info = inspect(placed.path)
    variant = {
        "schema": SCHEMA,
        "name": result.name,
        "status": result.status.value if fallback is None else f"fallback-{fallback}",
        **_identity(chosen),
        "files": [_file(f, folder) for f in placed.files],
        "sha256": placed.sha256,
        "size_bytes": placed.size_bytes,
        "inputs": [_tensor(t) for t in info.inputs],
        "outputs": [_tensor(t) for t in info.outputs],
        "preprocessing": plain(preprocessing),
        "objective": list(result.objectives) if result.more_objectives else result.objective,
        "baseline": {"id": result.baseline.id, "sha256": result.baseline.sha256},
        "budget": result.budget.to_json(),
        "budget_version": result.budget_version,
        "environment": plain(result.environment),
    }
    text = json.dumps(variant, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / VARIANT_FILE).write_text(text, encoding="utf-8")
    text = readme(result, chosen, info.inputs, info.outputs, fallback=fallback)
    (folder / README_FILE).write_text(text, encoding="utf-8")
    return placed.sha256


def readme_of(result: StudyResult, folder: Path, *, fallback: int | None = None) -> str:
    """What the README.md of the bundle in ``folder`` should say by now; ``fallback`` as in ``write_bundle``."""
    from autopilot.model import TensorInfo

    chosen = result.chosen if fallback is None else result.fallbacks[fallback - 1].candidate
    assert chosen is not None, "a bundle is of a chosen candidate"
    variant = json.loads((folder / VARIANT_FILE).read_text(encoding="utf-8"))
    inputs, outputs = (
        [TensorInfo(t["name"], t["dtype"], tuple(t["shape"])) for t in variant[kind]] for kind in ("inputs", "outputs")
    )
    return readme(result, chosen, inputs, outputs, fallback=fallback)


def _identity(chosen: Candidate) -> dict[str, Any]:
    value = chosen.to_json()
    kept = ("id", "recipe", "deployment", "measured", "verdict", "overall", "violations", "speedup")
    return {"artifact": MODEL_FILE, **{key: value[key] for key in kept}}


def _copy(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact's files in ``folder``, the main one as model.onnx.

    External data keeps its place relative to the main file, since the model names it so.
    """
    main, *rest = artifact.files
    names = [MODEL_FILE, *(os.fspath(f.relative_to(main.parent)) for f in rest)]
    if MODEL_FILE in names[1:]:
        raise ModelError(
            f"{main}: its external data is called {MODEL_FILE}, the name the model itself gets.",
            "Export the model again with another name for the data.",
        )
    targets = []
    for source, name in zip(artifact.files, names, strict=True):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, target)  # no hard link: editing it would change the cache's file
        except FileNotFoundError as exc:
            raise ModelError(f"{source}: the model file is gone.", "Run the study again with --fresh.") from exc
        targets.append(target)
    return Artifact.of(targets, parent=artifact.parent, step=artifact.step)


def _file(path: Path, folder: Path) -> dict[str, Any]:
    return {
        "name": path.relative_to(folder).as_posix(),
        "sha256": sha256_file(path),
        "size_bytes": path.stat().st_size,
    }


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
