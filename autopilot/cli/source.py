"""DIR_OR_RUN: what ``show`` and ``report`` take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autopilot.errors import BadInput

if TYPE_CHECKING:
    from autopilot.result import StudyResult


def find_result(source: str) -> tuple[StudyResult, Path | None]:
    """The result that ``source`` names, and its folder; None for one that MLflow has.

    Raises:
        BadInput: there is no such folder, file or run, or it holds no result.
    """
    from autopilot.result import StudyResult

    path = Path(source)
    if path.exists():
        return StudyResult.load(path), path if path.is_dir() else path.parent
    if "/" in source or "." in source:
        raise BadInput(f"{source} does not exist.", "Name the folder of a finished run, or an MLflow run id.")
    from autopilot.tracking import load_result

    try:
        return StudyResult.from_json(load_result(source)), None
    except BadInput as exc:
        likely = Path("runs", source)
        hint = (
            f"Did you mean {likely}?" if likely.is_dir() else "Name a run's folder, such as runs/NAME, or a run's id."
        )
        raise BadInput(f"there is no folder {source} here, and as an id in MLflow: {exc.message}", hint) from exc
