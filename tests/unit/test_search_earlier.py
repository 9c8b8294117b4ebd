"""A finished study's result: gone on with, kept beside the next one, or refused to another study."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from autopilot.errors import BadInput
from autopilot.observer import NullObserver
from autopilot.outputs import write_result
from autopilot.result import StudyResult
from autopilot.search import conclude, start
from autopilot.search.earlier import check_name, keep_earlier, remove_result, set_aside
from autopilot.search.ledger import Ledger
from autopilot.search.resume import to_go_on_with
from autopilot.search.samples import ASIDE, WORK, readings_in
from autopilot.search.state import RunState
from autopilot.search.storage import local_url
from autopilot.search.worker import Worker
from autopilot.spec import SearchSpec
from tests.unit.search_support import SPACE, Facts, FakeEvaluator, Recorder, random_world, setup_of
from tests.unit.test_search_loop import Clock, Killed, kept, run, simulated

WORLD = random_world(3)


def limits(trials: int, timeout_s: float = 600.0) -> SearchSpec:
    return SearchSpec(trials=trials, timeout_s=timeout_s)


def finished(
    folder: Path, search: SearchSpec, *, watcher: Recorder | None = None, spec: str = "same", clock: Clock | None = None
) -> tuple[StudyResult, FakeEvaluator]:
    """A simulated run whose result lies in its folder, with a model."""
    result, (evaluator,) = run(folder, WORLD, search=search, observer=watcher, parts={"spec": spec}, clock=clock)
    out = folder / "out"
    (out / "best").mkdir(exist_ok=True)
    (out / "best" / "model.onnx.part").write_text(f"model of {len(result.trials)}")
    (out / "best" / "model.onnx.part").replace(out / "best" / "model.onnx")
    write_result(result, out)
    return result, evaluator


def trials_in(folder: Path) -> int:
    return len(json.loads((folder / "result.json").read_text())["trials"])


def screened(evaluator: FakeEvaluator) -> list[str]:
    return [variant for variant, later in evaluator.asked if not later]


def test_finished_run_goes_on_when_it_gets_more_trials(tmp_path: Path) -> None:
    """Its trials are taken over, none is measured again, and the user is told what changed."""
    first, one = finished(tmp_path, limits(5))
    watcher = Recorder()
    second, other = finished(tmp_path, limits(9), watcher=watcher)

    assert [t.id for t in second.trials][:5] == [t.id for t in first.trials]
    assert len(second.trials) == 9
    assert not set(screened(one)[1:]) & set(screened(other))
    assert any("going on with the finished run" in n and "trials raised from 5 to 9" in n for n in watcher.notes)
    assert not (tmp_path / "out" / "earlier").exists()


@pytest.mark.parametrize("search", [limits(5), limits(5, 3.0), limits(5, 900.0)], ids=["same", "less time", "no more"])
def test_finished_run_with_nothing_left_to_do_is_repeated_and_kept(tmp_path: Path, search: SearchSpec) -> None:
    """The earlier result, its model and its readings are in earlier/ once the new result is written."""
    finished(tmp_path, limits(5))
    out = tmp_path / "out"
    readings = {f.name for f in (out / WORK / "samples").iterdir()}
    watcher = Recorder()
    run(tmp_path, WORLD, search=search, observer=watcher)

    (place,) = (out / "earlier").iterdir()
    assert trials_in(place) == 5
    assert (place / "best" / "model.onnx").read_text() == "model of 5"
    assert {f.name for f in (place / WORK / "samples").iterdir()} == readings
    assert not (out / WORK / ASIDE).exists()
    assert any("starts anew" in note for note in watcher.notes)
    assert any("the earlier result of this folder is kept in" in note for note in watcher.notes)


def test_more_trials_without_more_time_say_what_is_lacking(tmp_path: Path) -> None:
    """A study that used its time up needs more of it."""
    finished(tmp_path, limits(5))
    state = tmp_path / "out" / WORK / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "elapsed_s": 700.0}))
    watcher = Recorder()
    run(tmp_path, WORLD, search=limits(9), observer=watcher)

    assert any("a --timeout of more than the 600 s" in note for note in watcher.notes)


def test_interrupted_run_that_goes_on_with_fewer_trials_says_how_many_there_are(tmp_path: Path) -> None:
    """What ended the search is in the result: not that all of fewer trials were run than it lists."""
    finished(tmp_path, limits(5))
    state = tmp_path / "out" / WORK / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "finished": False}))
    result, _ = run(tmp_path, WORLD, search=limits(3))

    assert len(result.trials) == 5
    assert result.ended == "5 trials were run already, and 3 asked for"


def test_edited_spec_starts_anew_says_what_changed_and_keeps_the_result(tmp_path: Path) -> None:
    """The same name with another question: the usual way to work."""
    finished(tmp_path, limits(5))
    watcher = Recorder()
    run(tmp_path, WORLD, search=limits(4), observer=watcher, parts={"spec": "edited"})

    assert any("the earlier run in this folder is not continued: spec changed" in note for note in watcher.notes)
    assert [trials_in(place) for place in (tmp_path / "out" / "earlier").iterdir()] == [5]


@pytest.mark.parametrize("end", [5, 20, 60, 100])
def test_interrupted_repetition_leaves_the_earlier_result_whole(tmp_path: Path, end: int) -> None:
    """Killed anywhere, the folder's result is the earlier one with its own readings; then it goes on, and keeps it."""
    finished(tmp_path, limits(5))
    out = tmp_path / "out"
    before = {f.name: f.read_bytes() for f in (readings_in(out) / "samples").iterdir()}
    with contextlib.suppress(Killed):
        run(tmp_path, WORLD, search=limits(5), clock=Clock(end))

    assert trials_in(out) == 5
    assert (out / "best" / "model.onnx").exists()
    assert {f.name: f.read_bytes() for f in (readings_in(out) / "samples").iterdir()} == before
    result, _ = finished(tmp_path, limits(5))
    assert len(result.trials) == len(kept(tmp_path)) == 5
    assert [trials_in(place) for place in (out / "earlier").iterdir()] == [5]


def test_two_repetitions_keep_both_results(tmp_path: Path) -> None:
    """Results that were written within one second don't take each other's place."""
    for trials in (5, 4, 3):
        finished(tmp_path, limits(trials))
        os.utime(tmp_path / "out" / "result.json", (1e9, 1e9))

    names = sorted(place.name for place in (tmp_path / "out" / "earlier").iterdir())
    assert names == ["2001-09-09T01-46-40Z", "2001-09-09T01-46-40Z-2"]
    assert [trials_in(tmp_path / "out" / "earlier" / name) for name in names] == [5, 4]


def test_keeping_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    """A kill between the files and the readings loses neither, and doubles nothing."""
    finished(tmp_path, limits(3))
    out = tmp_path / "out"
    set_aside(out)
    aside = out / WORK / ASIDE
    kept_readings = {f.name for f in (aside / "samples").iterdir()}
    place = keep_earlier(out)
    assert place is not None
    (place / WORK / "samples").rename(out / "readings")
    aside.mkdir()
    (out / "readings").rename(aside / "samples")

    assert keep_earlier(out) == place
    assert keep_earlier(out) is None
    assert {f.name for f in (place / WORK / "samples").iterdir()} == kept_readings


def test_folder_of_another_study_is_refused_with_both_names(tmp_path: Path) -> None:
    """Another name in the same folder is a slip: nothing is touched, and --out and --fresh are named."""
    finished(tmp_path, limits(3))
    out = tmp_path / "out"

    check_name(out, "simulated")
    with pytest.raises(BadInput, match="holds the study 'simulated', and this one is 'other'") as caught:
        check_name(out, "other")
    assert "--out runs/other" in caught.value.hint
    assert "--fresh" in caught.value.hint
    assert trials_in(out) == 3


def test_interrupted_study_of_another_name_is_refused_too(tmp_path: Path) -> None:
    """Its trials would be lost though it has no result yet."""
    with contextlib.suppress(Killed):
        run(tmp_path, lambda v: Facts(0.5), clock=Clock(60))

    with pytest.raises(BadInput, match="holds the study 'simulated'"):
        check_name(tmp_path / "out", "other")


def test_fresh_says_what_it_removes_and_keeps_nothing(tmp_path: Path) -> None:
    """The only way to lose a result, and it is told."""
    finished(tmp_path, limits(5))
    watcher, out = Recorder(), tmp_path / "out"
    problem = setup_of(tmp_path, search=limits(5)).problem
    with simulated(WORLD, SPACE, Clock()):
        start.run_study(problem, out, fresh=True, observer=watcher)

    assert any("--fresh: the result 'simulated' (" in note and "5 trials" in note for note in watcher.notes)
    assert not (out / "best").exists()
    assert not (out / "earlier").exists()


def test_run_that_goes_on_leaves_the_second_readings_until_its_result_is_written(tmp_path: Path) -> None:
    """Cut off during its last measurements, the folder's result has its own readings; then none of them is left."""
    finished(tmp_path, limits(5))
    samples = tmp_path / "out" / WORK / "samples"
    second = [*samples.glob("*-verify.npz"), *samples.glob("*-baseline.npz")]
    assert second
    second.append(samples / "0-verify.npz")  # a finalist of that time, which is none now
    for path in second:
        path.write_bytes(b"old")

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(conclude, "_write", killed)
        run(tmp_path, WORLD, search=limits(9), clock=Clock(10**6))
    assert {path.read_bytes() for path in second} == {b"old"}
    assert list(samples.glob("*-waiting.npz"))
    result, _ = finished(tmp_path, limits(9))

    assert {f.stem for f in samples.glob("*-verify.npz")} == {
        f"{t.number}-verify" for t in result.trials if t.verified is not None
    }
    assert b"old" not in {f.read_bytes() for f in samples.iterdir()}
    assert not list(samples.glob("*-waiting.npz"))


def joined(folder: Path, trials: int, *, watcher: Recorder | None = None, cut_off: bool = False) -> None:
    """A run that takes part in a shared study, and writes its result unless it is cut off before."""
    search = replace(limits(trials), storage=f"sqlite:///{folder / 'shared.db'}")
    if not cut_off:
        finished(folder, search, watcher=watcher)
        return

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(conclude, "_write", killed)
        run(folder, WORLD, search=search, clock=Clock(10**6))


@pytest.mark.parametrize("cut_off", [False, True])
@pytest.mark.parametrize("trials", [5, 9])
def test_result_of_a_shared_study_is_kept_when_its_folder_joins_again(
    tmp_path: Path, trials: int, cut_off: bool
) -> None:
    """With its model and its own readings, also where the run that joined was cut off and went on."""
    joined(tmp_path, 5)
    out, watcher = tmp_path / "out", Recorder()
    before = {f.name: f.read_bytes() for f in (out / WORK / "samples").iterdir()}
    if cut_off:
        joined(tmp_path, trials, cut_off=True)
        assert trials_in(out) == 5
        assert {name: (out / WORK / "samples" / name).read_bytes() for name in before} == before
    joined(tmp_path, trials, watcher=watcher)

    (place,) = (out / "earlier").iterdir()
    assert trials_in(place) == 5
    assert (place / "best" / "model.onnx").read_text() == "model of 5"
    readings = {f.name: f.read_bytes() for f in (place / WORK / "samples").iterdir()}
    assert {name: body for name, body in readings.items() if name in before} == before
    assert all(name.startswith("baseline-") for name in readings.keys() - before.keys())
    assert any("the earlier result of this folder is kept in" in note for note in watcher.notes)
    assert trials_in(out) == trials


def test_joining_twice_at_one_number_of_trials_leaves_the_first_baseline(tmp_path: Path) -> None:
    """The second measurements of the result between rest on it."""
    for _ in range(3):
        joined(tmp_path, 5)

    samples = tmp_path / "out" / WORK / "samples"
    assert {f.stem for f in samples.glob("baseline-*.npz")} == {"baseline-5", "baseline-5-2"}
    assert len(list((tmp_path / "out" / "earlier").iterdir())) == 2


@pytest.mark.parametrize("own", ["", "[1, 2]", '{"name": "mine", "status": "ok", "trials": []}', "no JSON"])
def test_fresh_leaves_files_that_no_run_wrote(tmp_path: Path, own: str) -> None:
    """A folder of the user's own called best/, beside the spec, is no result, whatever result.json lies there."""
    out = tmp_path / "out"
    for name in ("best", "nearest", "fallbacks"):
        (out / name).mkdir(parents=True)
        (out / name / "notes.txt").write_text("mine")
    for name in ("trials.csv", "report.html"):
        (out / name).write_text("mine")
    if own:
        (out / "result.json").write_text(own)
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    remove_result(out)

    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == before


def test_fresh_names_each_file_it_removes(tmp_path: Path) -> None:
    """Also where a result is only half there."""
    finished(tmp_path, limits(3))
    out, watcher = tmp_path / "out", Recorder()
    set_aside(out)
    (out / "result.json").unlink()
    with simulated(WORLD, SPACE, Clock()):
        problem = setup_of(tmp_path, search=limits(3)).problem
        start.run_study(problem, out, fresh=True, observer=watcher)

    assert any(
        "--fresh: what is left of a result" in note and note.endswith(": report.html, best") for note in watcher.notes
    )
    assert not (out / "best").exists()
    assert not (out / WORK / ASIDE).exists()


def test_folder_without_a_result_has_nothing_to_keep(tmp_path: Path) -> None:
    """A first run makes no earlier/."""
    with simulated(WORLD, SPACE, Clock()):
        problem = setup_of(tmp_path, search=limits(3)).problem
        start.run_study(problem, tmp_path / "out", fresh=False, observer=NullObserver())

    assert not (tmp_path / "out" / "earlier").exists()


def test_timeout_raised_by_a_minute_gives_a_minute_to_a_run_that_ended_late(tmp_path: Path) -> None:
    """What verifying its finalists took beyond the time isn't charged to the run that goes on."""
    finished(tmp_path, limits(5, 60.0))
    file = tmp_path / "out" / WORK / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "elapsed_s": 95.0}))
    before = RunState.load(file.parent)
    assert before is not None
    ledger = Ledger(local_url(file.parent), "simulated", worker=Worker.here())

    found = to_go_on_with(file.parent, replace(before, trials=9, timeout_s=90.0), ledger, NullObserver())
    ledger.close()

    assert found is not None
    assert (found.elapsed_s, found.finished, found.trials) == (60.0, False, 9)
