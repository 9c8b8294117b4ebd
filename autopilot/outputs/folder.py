"""Writes the run folder; whatever a reader finds in it is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopilot.artifact import Artifact
from autopilot.errors import BadInput
from autopilot.outputs.bundle import MODEL_FILE, README_FILE, VARIANT_FILE, readme_of, write_bundle
from autopilot.result import Status, StudyResult, trials_csv

BEST, NEAREST = "best", "nearest"
FALLBACKS = "fallbacks"


def check_writable(out: Path) -> None:
    """Return when ``out`` is, or can become, a folder that takes files; leave nothing behind.

    Raises:
        BadInput: a file stands in the way, or the folder refuses to be written to.
    """
    existing = out
    while not existing.exists() and existing != existing.parent:
        if existing.is_symlink():
            raise BadInput(f"the output folder {out} can't be made: {existing} is a broken link.", _HINT)
        existing = existing.parent
    if not existing.is_dir():
        what = "is a file" if existing == out else f"can't be made: {existing} is a file"
        raise BadInput(f"the output folder {out} {what}.", _HINT)
    try:
        handle, name = tempfile.mkstemp(prefix=".autopilot-", dir=existing)
    except OSError as exc:
        raise BadInput(f"the output folder {out} can't be written: {exc.strerror} ({existing}).", _HINT) from exc
    os.close(handle)
    os.unlink(name)


_HINT = "Choose another --out."


def write_outputs(
    result: StudyResult,
    out: Path,
    artifact: Artifact | None,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    fallbacks: Sequence[Artifact] = (),
) -> StudyResult:
    """Write result.json, trials.csv, best/ (in budget) or nearest/ (otherwise), fallbacks/; the result as written.

    ``artifact`` holds the files of ``result.chosen``, ``fallbacks`` those of ``result.fallbacks`` in their order;
    ``preprocessing`` is the spec's ``data:`` mapping as JSON (``inputs``, ``batched``, ``preprocess``,
    ``postprocess``), recorded so that users see what the model's inputs are made from. The result returned names
    the model files in the run folder. Each part is built aside and renamed into place, result.json last.

    Raises:
        ModelError: the artifact's files are gone or damaged.
    """
    out.mkdir(parents=True, exist_ok=True)
    keep, drop = (BEST, NEAREST) if result.status is Status.IN_BUDGET else (NEAREST, BEST)
    chosen = result.chosen
    if chosen is not None and artifact is not None:
        part = _fresh(out / f".{keep}.part")
        sha256 = write_bundle(result, artifact, part, preprocessing=preprocessing or {})
        _swap(part, out / keep)
        placed = replace(chosen, artifact=f"{keep}/{MODEL_FILE}", sha256=sha256)
        result = replace(result, best=placed) if result.best else replace(result, nearest=placed)
    else:
        _remove(out / keep)
    _remove(out / drop)
    result = _write_fallbacks(result, out, fallbacks, preprocessing or {})
    _write_text(out / "trials.csv", trials_csv(result))
    write_result(result, out)
    return result


def _write_fallbacks(
    result: StudyResult, out: Path, artifacts: Sequence[Artifact], preprocessing: Mapping[str, Any]
) -> StudyResult:
    """``result`` with its fallbacks in fallbacks/1, fallbacks/2, …; an earlier run's are gone."""
    if not result.fallbacks:
        _remove(out / FALLBACKS)
        return result
    part, placed = _fresh(out / f".{FALLBACKS}.part"), []
    for place, (fallback, artifact) in enumerate(zip(result.fallbacks, artifacts, strict=True), 1):
        folder = _fresh(part / str(place))
        sha256 = write_bundle(result, artifact, folder, preprocessing=preprocessing, fallback=place)
        candidate = replace(fallback.candidate, artifact=f"{FALLBACKS}/{place}/{MODEL_FILE}", sha256=sha256)
        placed.append(replace(fallback, candidate=candidate))
    _swap(part, out / FALLBACKS)
    return replace(result, fallbacks=tuple(placed))


def write_result(result: StudyResult, out: Path) -> Path:
    """Write ``out/result.json`` whole or not at all; its path."""
    return _write_text(out / "result.json", result.text())


def write_logged(result: StudyResult, out: Path) -> None:
    """Bring ``out`` up to date once MLflow has ``result``: the READMEs beside the models name its versions.

    Not before: which versions these are, and whether the winner became champion, is known only then.
    """
    chosen = BEST if result.status is Status.IN_BUDGET else NEAREST
    ladder = [(f"{FALLBACKS}/{place}", place) for place in range(1, len(result.fallbacks) + 1)]
    for name, place in [(chosen, None), *ladder]:
        if (out / name / VARIANT_FILE).is_file():
            _write_text(out / name / README_FILE, readme_of(result, out / name, fallback=place))
    write_result(result, out)


def _write_text(path: Path, text: str) -> Path:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="")
    return part.replace(path)


def _fresh(folder: Path) -> Path:
    _remove(folder)
    folder.mkdir(parents=True)
    return folder


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _swap(part: Path, target: Path) -> None:
    """Put ``part`` in ``target``'s place; a folder can't be renamed over one that isn't empty."""
    old = target.with_name(f".{target.name}.old")
    _remove(old)
    if target.exists() or target.is_symlink():
        target.rename(old)
    part.rename(target)
    _remove(old)
