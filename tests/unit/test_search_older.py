"""Earlier results of a run folder: the last few stay, older ones go once MLflow has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autopilot.search import older
from autopilot.search.older import KEPT, remove_older
from tests.unit.search_support import Recorder
from tests.unit.test_search_earlier import finished, limits

LOGGED = {"tracking_uri": "sqlite:///mlflow.db", "experiment": "simulated", "run_id": "1"}


def place(out: Path, name: str, **more: Any) -> Path:
    """An earlier result with a model, as far as removing it looks."""
    folder = out / "earlier" / name
    (folder / "best").mkdir(parents=True)
    (folder / "best" / "model.onnx").write_text(name)
    result = {"schema": 1, "status": "in_budget", "name": "simulated", "trials": [], "budget": {}, "mlflow": LOGGED}
    (folder / "result.json").write_text(json.dumps(result | more))
    return folder


def names(out: Path) -> list[str]:
    return sorted(p.name for p in (out / "earlier").iterdir())


def days(count: int) -> list[str]:
    return [f"2001-11-{day:02d}T08-00-00Z" for day in range(1, count + 1)]


def test_only_the_newest_results_stay(tmp_path: Path) -> None:
    """The oldest go, with their models; those that went are told, oldest first."""
    for name in days(KEPT + 2):
        place(tmp_path, name)

    assert [p.name for p in remove_older(tmp_path)] == days(2)
    assert names(tmp_path) == days(KEPT + 2)[2:]
    assert remove_older(tmp_path) == []


def test_results_of_one_second_go_by_number(tmp_path: Path) -> None:
    """The tenth of a second is newer than its second."""
    first = days(1)[0]
    for name in (first, *(f"{first}-{n}" for n in range(2, 11))):
        place(tmp_path, name)
    remove_older(tmp_path, 2)

    assert names(tmp_path) == [f"{first}-10", f"{first}-9"]


def test_result_that_mlflow_does_not_have_stays(tmp_path: Path) -> None:
    """Its models are nowhere else."""
    for name in days(4):
        place(tmp_path, name, **({"mlflow": None} if name == days(4)[0] else {}))
    remove_older(tmp_path, 1)

    assert names(tmp_path) == [days(4)[0], days(4)[3]]


def test_results_of_champion_and_previous_stay(tmp_path: Path) -> None:
    """MLflow's aliases name the last two that were crowned: their readings are here only."""
    for name in days(6):
        place(tmp_path, name, mlflow=LOGGED | {"champion": name in days(3)})
    remove_older(tmp_path, 1)

    assert names(tmp_path) == [days(3)[1], days(3)[2], days(6)[5]]


@pytest.mark.parametrize("name", ["good-one", "2001-11-01T08-00-00Z keep", ".hidden"])
def test_what_is_not_named_by_a_run_stays(tmp_path: Path, name: str) -> None:
    """A folder that somebody renamed is theirs, and takes no place among the newest."""
    place(tmp_path, name)
    for day in days(2):
        place(tmp_path, day)
    (tmp_path / "earlier" / "2000-01-01T00-00-00Z").symlink_to(tmp_path)
    (tmp_path / "earlier" / "2000-01-02T00-00-00Z").mkdir()
    remove_older(tmp_path, 1)

    assert set(names(tmp_path)) == {name, days(2)[1], "2000-01-01T00-00-00Z", "2000-01-02T00-00-00Z"}


def test_removal_that_was_cut_off_is_ended_by_the_next(tmp_path: Path) -> None:
    """So are results that were being linked when their run was killed; nobody sees half of one meanwhile."""
    place(tmp_path, f".{days(1)[0]}.gone")
    place(tmp_path, f".{days(2)[1]}-2.part")

    assert remove_older(tmp_path) == []
    assert names(tmp_path) == []


def test_folder_without_earlier_results_is_left_alone(tmp_path: Path) -> None:
    """Most runs have none."""
    assert remove_older(tmp_path) == []
    assert not (tmp_path / "earlier").exists()


def test_run_removes_older_results_and_says_so_in_a_line(tmp_path: Path) -> None:
    """When its own is written; the result it replaced is the newest of the earlier ones."""
    finished(tmp_path, limits(3))
    out, watcher = tmp_path / "out", Recorder()
    for name in days(KEPT):
        place(out, name)
    finished(tmp_path, limits(3), watcher=watcher)

    assert names(out)[:-1] == days(KEPT)[1:]
    assert len(names(out)) == KEPT
    (note,) = [n for n in watcher.notes if days(1)[0] in n]
    assert note == older.removal_text([out / "earlier" / days(1)[0]])
