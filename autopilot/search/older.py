"""Which earlier results of a run folder go: each keeps its models, and a spec that is run all day would fill a disk."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autopilot.search.earlier import EARLIER, holds_result

# With three fallbacks each these are 20 copies of a model at most, and a day's edits of one spec to look back at.
KEPT = 5
# Of those that were crowned the newest two stay: what MLflow's aliases ``champion`` and ``previous`` stand for, with
# the raw readings, which MLflow hasn't.
_CROWNED = 2
# As ``earlier`` names them. What somebody has renamed or put there is theirs: a name is how a result is kept for good.
_NAME = re.compile(r"(?P<when>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)(-(?P<number>\d+))?")
# What a run that was killed left of a result that it was linking, or removing.
_LEFT = re.compile(rf"\.{_NAME.pattern}\.(part|gone)")


def remove_older(out: Path, kept: int = KEPT) -> list[Path]:
    """Remove results from ``earlier/`` in ``out`` but for the newest ``kept``; those that are gone, the oldest first.

    However old, these stay: a result that wasn't logged to MLflow, since its models are nowhere else; the newest two
    whose winner became champion; what isn't named as a run names it. What can't be removed stays without a word: the
    user waits for the run's own result.

    To be called by the run that holds the folder: no other one links a result there meanwhile.
    """
    found = sorted((p for p in _folders(out / EARLIER) if _NAME.fullmatch(p.name)), key=_age)
    logged = {place: reference for place in found if (reference := _logged(place)) is not None}
    crowned = [place for place in found if logged.get(place, {}).get("champion")][-_CROWNED:]
    gone = []
    for place in found[: max(0, len(found) - kept)]:
        if place in logged and place not in crowned:
            with contextlib.suppress(OSError):
                place.rename(place.with_name(f".{place.name}.gone"))  # in one step: nobody finds half of it
                gone.append(place)
    for left in _folders(out / EARLIER):
        if _LEFT.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True)
    return gone


def removal_text(gone: Sequence[Path]) -> str:
    """What the user is told of it, in a line.

    >>> removal_text([Path("runs/digits/earlier/2026-11-20T08-00-00Z")])
    'earlier results beyond the newest 5 are removed from runs/digits/earlier (MLflow has them): 2026-11-20T08-00-00Z'
    """
    names = ", ".join(path.name for path in gone)
    return f"earlier results beyond the newest {KEPT} are removed from {gone[0].parent} (MLflow has them): {names}"


def _folders(earlier: Path) -> list[Path]:
    try:
        return [p for p in earlier.iterdir() if p.is_dir() and not p.is_symlink()]
    except OSError:  # there is none yet
        return []


def _age(place: Path) -> tuple[str, int]:
    """Sorts by when a result was written; within one second by its number."""
    match = _NAME.fullmatch(place.name)
    assert match is not None
    return match["when"], int(match["number"] or 1)


def _logged(place: Path) -> Mapping[str, Any] | None:
    """Where MLflow has the result in ``place``, as its ``mlflow`` says; None where it was never logged."""
    if not holds_result(place):
        return None
    reference = json.loads((place / "result.json").read_text(encoding="utf-8")).get("mlflow")
    return reference if isinstance(reference, dict) else None
