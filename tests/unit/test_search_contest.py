"""Who becomes champion: rulings on simulated measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autopilot.artifact import Artifact
from autopilot.bench.compare import Comparison
from autopilot.budget import Budget
from autopilot.errors import BadInput
from autopilot.profile import Interval
from autopilot.recipe import Recipe, Variant
from autopilot.result import StudyResult
from autopilot.search import contest as module
from autopilot.search.outcome import Outcome
from autopilot.search.ranking import Ranking
from autopilot.testing import FAKE_BUDGET, fake_measured, fake_result
from autopilot.tracking import Champion, Ruling
from tests.unit.search_support import Recorder, artifact_of, setup_of

OLD = {"sha256": "f" * 64, "variant": "another", "hardware": "here"}
LATENCY = Ranking("latency_p50_ms", maximize=False)


class Tracking:
    """A tracker that knows one champion, whose files are to be had or not."""

    def __init__(self, tags: dict[str, str] | None, *, gone: bool = False) -> None:
        self._champion = None if tags is None else Champion("fake-study", 4, tags)
        self._gone = gone

    def champion(self, result: StudyResult) -> Champion | None:
        return self._champion

    def fetch(self, champion: Champion, folder: Path) -> Path:
        if self._gone:
            raise BadInput("its files are gone.")
        return folder


def ruled(
    tags: dict[str, str] | None,
    monkeypatch: pytest.MonkeyPatch,
    *,
    ratio: tuple[float, float] = (0.9, 0.95),
    old: dict[str, float] | None = None,
    ranking: Ranking = LATENCY,
    gone: bool = False,
) -> Ruling:
    """The ruling where the winner's latency is ``ratio`` (bounds) times the champion's, which measures as ``old``."""
    budget: Budget = FAKE_BUDGET
    measured = fake_measured(**(old or {"latency_ms": 0.5}))
    outcome = Outcome(Variant(Recipe(), setup_of(Path()).space.default_deployment()), artifact_of(Recipe()), measured)
    evaluator: Any = SimpleNamespace(
        setup=setup_of(Path()),
        observer=Recorder(),
        verdict=lambda o: budget.judge(o.measured),
        compare=lambda a, b, *, q, cap_s: Comparison(Interval(sum(ratio) / 2, *ratio), (9, 9), 4, 1.0),
    )
    monkeypatch.setattr(module, "fitting", lambda bundle, setup: (outcome.variant, outcome.artifact))
    monkeypatch.setattr(module, "measure_again", lambda evaluator, variant, artifact: outcome)
    monkeypatch.setattr(module, "inspect", lambda path: SimpleNamespace(files=(path,)))
    monkeypatch.setattr(Artifact, "of", lambda files, **more: artifact_of(Recipe()))
    result = replace(fake_result(), environment={"fingerprint": "here"})
    tracking: Any = Tracking(tags, gone=gone)
    return module.contest(evaluator, result, ranking, tracking, Path())


def test_first_winner_is_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to beat."""
    assert ruled(None, monkeypatch) == Ruling(True, "there was no champion before")


def test_same_variant_again_moves_the_alias_and_leaves_previous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing changes for those who serve it; the version of now carries the verdict of now."""
    best = fake_result().best
    assert best is not None

    ruling = ruled({"sha256": best.sha256, "variant": best.id}, monkeypatch)

    assert (ruling.crown, ruling.keeps_previous) == (True, True)


@pytest.mark.parametrize(("ratio", "crowned"), [((0.9, 0.95), True), ((0.9, 1.05), False), ((1.1, 1.2), False)])
def test_latency_is_read_against_the_champion_itself(
    monkeypatch: pytest.MonkeyPatch, ratio: tuple[float, float], crowned: bool
) -> None:
    """Certainly faster, or the champion stays: a tie is no reason to change what is served."""
    ruling = ruled(OLD, monkeypatch, ratio=ratio)

    assert ruling.crown is crowned
    assert "interleaved" in ruling.reason


@pytest.mark.parametrize("old", [{"latency_ms": 0.2, "drop": 0.5}, {"latency_ms": 0.2, "size_mb": 99.0}])
def test_champion_that_breaks_the_budget_of_now_goes(monkeypatch: pytest.MonkeyPatch, old: dict[str, float]) -> None:
    """However fast it is: a budget that was tightened holds for it too."""
    ruling = ruled(OLD, monkeypatch, old=old, ratio=(1.5, 1.6))

    assert ruling.crown
    assert "not shown to keep the budget" in ruling.reason


@pytest.mark.parametrize(("size_mb", "crowned"), [(0.9, True), (0.6, False), (0.5, False)])
def test_other_objectives_are_compared_by_their_intervals(
    monkeypatch: pytest.MonkeyPatch, size_mb: float, crowned: bool
) -> None:
    """The winner measures 0.6 MB."""
    ranking = Ranking("size_mb", maximize=False)

    assert ruled(OLD, monkeypatch, old={"latency_ms": 0.5, "size_mb": size_mb}, ranking=ranking).crown is crowned


@pytest.mark.parametrize(("hardware", "crowned"), [("here", True), ("elsewhere", False)])
def test_champion_that_cannot_be_run_stays_only_if_it_is_of_other_hardware(
    monkeypatch: pytest.MonkeyPatch, hardware: str, crowned: bool
) -> None:
    """What can't be run here may serve well where it was chosen; what was chosen here and is gone serves nobody."""
    ruling = ruled({**OLD, "hardware": hardware}, monkeypatch, gone=True)

    assert ruling.crown is crowned
    assert "version 4 couldn't be measured here: its files are gone." in ruling.reason
