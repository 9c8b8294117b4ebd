"""Kill -9 at random moments of a run: of the parent, of a child, of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.kill_support import KINDS, problems, run_under_kills
from tests.integration.run_support import UNTIMED, environment, write_study

pytestmark = pytest.mark.integration

TRIALS = 5


def study(folder: Path) -> None:
    """A small study whose verdict doesn't hang on the machine's mood."""
    folder.mkdir(exist_ok=True)
    search = {"trials": TRIALS, "timeout": "300s", "seed": 0}
    write_study(folder, search=search, **UNTIMED)


def test_run_under_kills_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Whoever is killed: finished trials stay as they are, the rest is tried, and the study ends with a winner."""
    study(tmp_path)
    found = run_under_kills(tmp_path, KINDS, within_s=6.0, seed=0, environment=environment(tmp_path))

    assert problems(found, TRIALS) == [], found.said
    assert set(found.kills.values()) == {1}
    assert found.result["status"] == "in_budget"
