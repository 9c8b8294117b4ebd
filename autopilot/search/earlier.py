"""What an earlier run left in a run folder: it stays the folder's result until another one is written, and is kept."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from autopilot.errors import BadInput
from autopilot.search.samples import ASIDE, FOLDER, WORK, settled_samples
from autopilot.search.state import RunState

# Where earlier results are kept, each in a folder of its own that is a run folder: `show` and `report` take it.
EARLIER = "earlier"
_RESULT = "result.json"
# In a run's own folder: a mark that its result is to be kept when the next one of the same shared study is written.
REJOINED = "rejoined"
# The result first: removed or copied half, a folder without it is taken for none.
_FILES = (_RESULT, "trials.csv", "report.html", "best", "nearest", "fallbacks")
# What every version's result says of itself: another program's file of this name lacks some of it.
_KEYS = {"schema", "status", "name", "trials", "budget"}


@dataclass(frozen=True, slots=True)
class Left:
    """A result in a run folder, as far as it has to be named."""

    name: str
    status: str
    trials: int

    def __str__(self) -> str:
        return f"{self.name!r} ({self.status.replace('_', ' ')}, {self.trials} trials)"


def result_in(out: Path) -> Left | None:
    """The result that lies in ``out``; None where there is none that can be read."""
    try:
        raw: dict[str, Any] = json.loads((out / _RESULT).read_text(encoding="utf-8"))
        return Left(str(raw["name"]), str(raw["status"]), len(raw["trials"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_name(out: Path, name: str) -> None:
    """Return when ``out`` holds no study of another name than ``name``.

    Raises:
        BadInput: it does, whose result and readings a run would replace.
    """
    left, state = result_in(out), RunState.load(out / WORK)
    found = left.name if left is not None else state.study if state is not None else ""
    if found and found != name:
        raise BadInput(
            f"{out} holds the study {found!r}, and this one is {name!r}: it would take that one's place.",
            f"Choose another folder (--out runs/{name}), or remove what is there and start anew (--fresh).",
        )


def set_aside(out: Path) -> None:
    """Put the readings of the result in ``out`` out of the way of a run that starts anew; the result stays.

    Cut off anywhere, the same call goes on from there. Where readings lie aside already, those in their usual place
    are an interrupted run's, and no result's.
    """
    work = out / WORK
    if not (out / _RESULT).exists() or (work / ASIDE).exists():
        return
    part = work / f"{ASIDE}.part"
    part.mkdir(exist_ok=True)
    if (work / FOLDER).exists() and not (part / FOLDER).exists():
        (work / FOLDER).rename(part / FOLDER)
    part.rename(work / ASIDE)


def mark_rejoined(out: Path) -> None:
    """Have the result in ``out`` kept though its readings stay: they belong to the shared study that goes on here."""
    if (out / _RESULT).exists():
        (out / WORK / REJOINED).touch()


def keep_earlier(out: Path) -> Path | None:
    """Move a result that was set aside, or whose study was joined again, to ``earlier/`` in ``out``; its folder there.

    To be called when another result is about to be written. The files are linked, so that the result in ``out`` is
    whole until it is replaced; cut off anywhere, the same call goes on from there.
    """
    aside, rejoined = out / WORK / ASIDE, out / WORK / REJOINED
    if not aside.exists() and not rejoined.exists():
        return None
    place = None
    if (out / _RESULT).exists():
        place = _place(out)
        if not place.exists():
            _link_result(out, place)
        readings = place / WORK / FOLDER
        if (aside / FOLDER).exists() and not readings.exists():
            readings.parent.mkdir(exist_ok=True)
            (aside / FOLDER).rename(readings)
        elif not aside.exists() and not readings.exists():
            _link_readings(out, readings)
    shutil.rmtree(aside, ignore_errors=True)
    rejoined.unlink(missing_ok=True)
    return place


def holds_result(out: Path) -> bool:
    """Whether ``out`` holds a result that a run wrote, or what is left of one: no file of these names alone is one."""
    try:
        raw = json.loads((out / _RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return (out / WORK / ASIDE).is_dir()
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and raw.keys() >= _KEYS


def files_of_result(out: Path) -> list[str]:
    """Names in ``out`` of the files and folders of a run's result; none where it holds no such result."""
    return [name for name in _FILES if os.path.lexists(out / name)] if holds_result(out) else []


def remove_result(out: Path) -> None:
    """Remove the result in ``out``, its files and its readings; what is kept in ``earlier/`` stays.

    Where there is no result of a run, files of the same names are somebody's own, and stay too. The result goes
    last: cut off anywhere, the same call goes on from there.
    """
    names = files_of_result(out)
    for path in (*(out / name for name in reversed(names)), out / WORK / ASIDE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _place(out: Path) -> Path:
    """The folder for the result in ``out``, by the time it was written; the one that has it already, if any."""
    result = out / _RESULT
    when = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(result.stat().st_mtime))
    for place in _numbered(out / EARLIER / when):
        if not place.exists() or (place / _RESULT).read_bytes() == result.read_bytes():
            return place
    raise AssertionError("numbers don't end")


def _numbered(folder: Path) -> Iterator[Path]:
    """``folder``, then with a number behind: two results may be written in one second."""
    yield folder
    yield from (folder.with_name(f"{folder.name}-{n}") for n in count(2))


def _link_result(out: Path, place: Path) -> None:
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in _FILES:
        source = out / name
        if source.is_dir():
            shutil.copytree(source, part / name, copy_function=_link)
        elif source.exists():
            _link(source, part / name)
    part.rename(place)


def _link_readings(out: Path, readings: Path) -> None:
    """One more name for what the result in ``out`` rests on; not for what its study has read since."""
    left = result_in(out)
    part = readings.with_name(f"{readings.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for source in settled_samples(out / WORK, first=0 if left is None else left.trials):
        _link(source, part / source.name)
    part.rename(readings)


def _link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """One more name for a file that is about to lose its own; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
