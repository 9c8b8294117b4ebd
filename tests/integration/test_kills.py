"""Kill -9 at random moments of a run: of the parent, of a child, of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.kill_support import KINDS, problems, run_under_kills
from tests.integration.run_support import autopilot, environment, result_of, write_study

pytestmark = pytest.mark.integration

TRIALS = 5


def study(folder: Path) -> None:
    """A small study whose verdict doesn't hang on the machine's mood."""
    folder.mkdir(exist_ok=True)
    search = {"trials": TRIALS, "timeout": "200s", "seed": 0}
    write_study(folder, search=search, budget={"quality_drop": 0.5, "size_mb": 50}, objective="latency_p50_ms")


def test_run_under_kills_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Whoever is killed: finished trials stay as they are, the rest is tried, and the study ends with a winner."""
    study(tmp_path)
    found = run_under_kills(tmp_path, KINDS, within_s=6.0, seed=0, environment=environment())

    assert problems(found, TRIALS) == [], found.said
    assert set(found.kills.values()) == {1}
    assert found.result["status"] == "in_budget"


@pytest.mark.slow
def test_run_under_thirty_kills_finds_the_winner_of_an_undisturbed_one(tmp_path: Path) -> None:
    """The same or one that can't be told from it; nothing lost, nothing twice."""
    study(tmp_path / "quiet")
    study(tmp_path / "killed")
    done = autopilot("run", "spec.yaml", "--out", "out", cwd=tmp_path / "quiet")
    assert done.returncode == 0, done.stderr
    found = run_under_kills(tmp_path / "killed", KINDS * 10, within_s=8.0, seed=1, environment=environment())

    assert problems(found, TRIALS) == [], found.said
    assert sum(found.kills.values()) == 30
    first, second = result_of(tmp_path / "quiet" / "out")["best"], found.result["best"]
    same = first["id"] == second["id"]
    assert same or first["speedup"]["low"] <= second["speedup"]["high"]
    assert same or second["speedup"]["low"] <= first["speedup"]["high"]
