"""The run folder's state and lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autopilot.errors import BadInput
from autopilot.search.state import FolderLock, RunState


def test_state_survives_and_names_what_changed(tmp_path: Path) -> None:
    """A resume finds what was stored and can say which part differs."""
    state = RunState({"spec": "1", "model": "2"}, False, "run", 3.5)
    state.save(tmp_path)

    found = RunState.load(tmp_path)

    assert found == state
    assert found is not None
    assert found.changed({"spec": "1", "model": "3"}) == ["model"]
    assert found.changed({"spec": "1", "model": "2"}) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": 3}', '{"identity": {}, "finished": false}'])
def test_torn_state_counts_as_none(tmp_path: Path, text: str) -> None:
    """A half-written file starts a new run instead of crashing."""
    (tmp_path / "state.json").write_text(text)

    assert RunState.load(tmp_path) is None


def test_lock_keeps_a_second_run_out_and_ends_with_its_holder(tmp_path: Path) -> None:
    """Two runs can't share a folder; a dead holder doesn't keep it."""
    folder = tmp_path / "out" / ".autopilot"
    folder.mkdir(parents=True)
    code = (
        "import sys, pathlib\n"
        "from autopilot.search.state import FolderLock\n"
        "lock = FolderLock(pathlib.Path(sys.argv[1]))\n"
        "lock.__enter__()\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    with pytest.raises(BadInput, match="in use"), FolderLock(folder):
        pass
    holder.kill()
    holder.communicate()

    with FolderLock(folder):
        pass
