"""The start of a run: what it goes on with, what it says has changed, and whom it works with."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopilot.errors import BadInput
from autopilot.observer import NullObserver
from autopilot.result import StudyResult
from autopilot.search import prepare, start
from autopilot.search.ledger import Ledger
from autopilot.search.start import study_name
from autopilot.search.worker import Worker
from autopilot.spec import SearchSpec
from autopilot.target import Target
from tests.unit.search_support import SPACE, Facts, FakeEvaluator, Recorder, random_world, setup_of
from tests.unit.test_search_loop import Clock, Killed, kept, run, simulated

PARTS = {"spec": "1", "model": "1", "validation data": "1", "library onnxruntime": "1.30"}


def screened(evaluator: FakeEvaluator) -> list[str]:
    """Variants that were measured in the search."""
    return [variant for variant, later in evaluator.asked if not later]


@pytest.mark.parametrize("changed", PARTS)
def test_changed_question_is_noticed_said_and_started_anew(tmp_path: Path, changed: str) -> None:
    """Spec, model, data or library: nothing of the interrupted run is used, and the user is told why."""
    with contextlib.suppress(Killed):
        run(tmp_path, lambda v: Facts(0.5), clock=Clock(60), parts=PARTS)
    assert kept(tmp_path)
    watcher = Recorder()
    result, (evaluator,) = run(tmp_path, lambda v: Facts(0.5), parts={**PARTS, changed: "other"}, observer=watcher)

    assert f"the interrupted run in this folder is not continued: {changed} changed" in watcher.notes
    measured = {t.id for t in result.trials if t.state != "duplicate"} - {result.trials[0].id}
    assert set(screened(evaluator)) == measured
    assert len(kept(tmp_path)) == len(result.trials)


def test_library_is_part_of_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version builds and runs other things."""
    for name in ("model.onnx", "valid.npz", "space.yaml"):
        (tmp_path / name).write_text(name)
    problem = setup_of(tmp_path).problem
    before = prepare.identity(problem, [tmp_path / "model.onnx"])
    monkeypatch.setattr(Target, "version_of", lambda self, name: "99")
    after = prepare.identity(problem, [tmp_path / "model.onnx"])

    assert {key for key in before if before[key] != after[key]} >= {"library onnxruntime", "library onnx"}


def test_other_hardware_is_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was copied to another machine doesn't mix the two machines' figures."""
    with contextlib.suppress(Killed):
        run(tmp_path, lambda v: Facts(0.5), clock=Clock(60))
    watcher = Recorder()
    monkeypatch.setattr(type(start.Target.detect()), "fingerprint", "elsewhere")
    run(tmp_path, lambda v: Facts(0.5), observer=watcher)

    assert any("machine changed" in note for note in watcher.notes)


def test_lost_ledger_is_noticed(tmp_path: Path) -> None:
    """A folder whose trials are gone is no run to go on with."""
    with contextlib.suppress(Killed):
        run(tmp_path, lambda v: Facts(0.5), clock=Clock(60))
    (tmp_path / "out" / start.WORK / "ledger.db").unlink()
    watcher = Recorder()
    result, _ = run(tmp_path, lambda v: Facts(0.5), observer=watcher)

    assert any("kept trials changed" in note for note in watcher.notes)
    assert len(result.trials) == 10


def test_digest_of_the_spec_holds_wherever_its_files_lie(tmp_path: Path) -> None:
    """Two machines keep the same files in other folders; what is in them has digests of its own."""
    like = setup_of(tmp_path).problem
    here = {
        "model": "model.onnx",
        "data": {"validation": "valid.npz", "preprocess": "steps.py:scale"},
        "space": "cpu",
        "search": {"trials": 3},
    }
    there = {
        "model": "/data/m.onnx",
        "data": {"validation": "/data/v.npz", "preprocess": "/data/steps.py:scale"},
        "space": "cpu",
        "search": {"timeout": "1m", "storage": "sqlite:////shared.db"},
    }
    other_hook = {**here, "data": {"validation": "valid.npz", "preprocess": "steps.py:other"}}

    digests = [replace(like, raw=raw).digest for raw in (here, there, other_hook, {**here, "space": "quick"})]

    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_study_name_tells_questions_apart() -> None:
    """One storage holds many studies; the name is readable and says which question."""
    assert study_name("fashion", PARTS) == study_name("fashion", dict(reversed(PARTS.items())))
    assert study_name("fashion", PARTS) != study_name("fashion", {**PARTS, "machine": "other"})
    assert study_name("fashion", PARTS).startswith("fashion ")


def shared(folder: Path, trials: int) -> SearchSpec:
    return SearchSpec(trials=trials, timeout_s=600.0, storage=f"sqlite:///{folder / 'shared.db'}")


def test_run_that_joins_later_goes_on_with_what_is_there(tmp_path: Path) -> None:
    """More trials of a study that another folder began: the first ones are taken over, not run again."""
    world = random_world(3)
    first, (one,) = run(tmp_path / "a", world, search=shared(tmp_path, 5))
    watcher = Recorder()
    second, (other,) = run(tmp_path / "b", world, search=shared(tmp_path, 10), observer=watcher)

    assert any("5 trials are finished" in note for note in watcher.notes)
    assert [t.id for t in second.trials][:5] == [t.id for t in first.trials]
    assert [t.number for t in second.trials] == list(range(10))
    assert not set(screened(one)) & set(screened(other))
    samples = tmp_path / "b" / "out" / start.WORK / "samples"
    assert (samples / "baseline-5.npz").exists()
    assert not (samples / "0.npz").exists()


def test_two_runs_at_once_measure_each_variant_once_and_end_alike(tmp_path: Path) -> None:
    """Whatever the order: one list of trials for both, nothing twice, never one too many."""
    world, results = random_world(5), dict[str, StudyResult]()
    search = shared(tmp_path, 12)

    def work(name: str) -> None:
        problem = setup_of(tmp_path / name, space=SPACE, search=search).problem
        results[name] = start.run_study(problem, tmp_path / name / "out", fresh=False, observer=NullObserver())

    with simulated(world, SPACE, Clock()) as made:
        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    ids = [[t.id for t in results[name].trials] for name in "ab"]
    assert ids[0] == ids[1]
    assert len(ids[0]) == len(set(ids[0])) == 12
    assert not set(screened(made[0])) & set(screened(made[1]))


def test_fresh_on_a_shared_study_is_refused_while_others_work(tmp_path: Path) -> None:
    """Nobody's trials are pulled from under him; when all have ended it starts anew, for everybody."""
    search, watcher = shared(tmp_path, 4), Recorder()
    first, _ = run(tmp_path / "a", lambda v: Facts(0.5), search=search)
    assert search.storage is not None
    parts = {"spec": "same", "machine": start.Target.detect().fingerprint}
    ledger = Ledger(search.storage, study_name("simulated", parts), worker=Worker.here(), lease_s=60.0)
    assert ledger.finished == 4
    variant = first.trials[0].variant
    ledger.claim(replace(variant, deployment=variant.deployment.with_(batch=77)), 99)
    problem = setup_of(tmp_path, search=search).problem

    def again() -> Any:
        with simulated(lambda v: Facts(0.5), SPACE, Clock()):
            return start.run_study(problem, tmp_path / "a" / "out", fresh=True, observer=watcher)

    with pytest.raises(BadInput, match="while others work on it"):
        again()
    assert not any("--fresh" in note for note in watcher.notes)  # nothing was removed
    ledger.release()

    assert len(again().trials) == 4


def test_study_that_is_started_anew_while_a_run_prepares_is_joined(tmp_path: Path) -> None:
    """Preparing may take minutes, and nothing of the trials was read before."""
    search = shared(tmp_path, 4)
    first, _ = run(tmp_path / "a", lambda v: Facts(0.5), search=search)
    assert search.storage is not None
    parts = {"spec": "same", "machine": start.Target.detect().fingerprint}
    other = Ledger(search.storage, study_name("simulated", parts), worker=Worker.here(), lease_s=60.0)
    prepared = setup_of(tmp_path / "b" / "out" / start.WORK, search=search)

    def prepare(*given: Any) -> Any:
        other.clear()
        return prepared

    with simulated(lambda v: Facts(0.5), SPACE, Clock()) as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "prepare", prepare)
        second = start.run_study(prepared.problem, tmp_path / "b" / "out", fresh=False, observer=NullObserver())

    assert len(first.trials) == len(second.trials) == 4
    assert len(screened(made[0])) == 3  # all but the baseline


@pytest.mark.parametrize("others", [(), ("runs/other/.autopilot/samples/0.npz",)], ids=["alone", "beside another"])
def test_bad_input_removes_what_the_run_made_and_nothing_of_others(tmp_path: Path, others: tuple[str, ...]) -> None:
    """Two runs that start in a folder without runs/: one whose data are wrong must not take the other's with it."""
    kept = [tmp_path / name for name in others]

    def refuses(*given: Any) -> Any:
        for file in kept:  # while this run was at work
            file.parent.mkdir(parents=True)
            file.touch()
        raise BadInput("the data are wrong.")

    problem = setup_of(tmp_path).problem
    with simulated(lambda v: Facts(0.5), SPACE, Clock()), pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "prepare", refuses)
        with pytest.raises(BadInput, match="the data are wrong"):
            start.run_study(problem, tmp_path / "runs" / "mine", fresh=False, observer=NullObserver())

    assert [file for file in tmp_path.rglob("*") if file.is_file()] == kept
    assert (tmp_path / "runs").exists() == bool(kept)
    assert not (tmp_path / "runs" / "mine").exists()
