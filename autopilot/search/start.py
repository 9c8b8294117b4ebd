"""The start of a run: its folder, its ledger, whether it goes on with an earlier one; then the search, to its end."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autopilot.errors import BadInput, BaselineFailed
from autopilot.model import inspect
from autopilot.observer import Observer
from autopilot.outputs import check_writable
from autopilot.recipe import digest
from autopilot.result import StudyResult
from autopilot.search.conclude import conclude
from autopilot.search.earlier import check_name, files_of_result, mark_rejoined, remove_result, result_in, set_aside
from autopilot.search.evaluator import Evaluator
from autopilot.search.leases import Renewing, lease_s
from autopilot.search.ledger import Ledger
from autopilot.search.loop import RunningStudy
from autopilot.search.prepare import identity, prepare, resolve_model
from autopilot.search.resume import to_go_on_with
from autopilot.search.samples import ASIDE, WORK
from autopilot.search.samples import FOLDER as SAMPLES
from autopilot.search.state import FolderLock, RunState
from autopilot.search.storage import ledger_files, local_url, masked
from autopilot.search.worker import Worker
from autopilot.spec import Problem
from autopilot.target import Target
from autopilot.tracking import load_in_background
from autopilot.words import counted

# Of a run folder's files, those that another question may use as they are.
_KEPT = ("lock", "model", "data", ASIDE, *ledger_files())
# The part of a run's identity that changes when its ledger is lost or its study is started anew elsewhere.
_GENERATION = "kept trials"


def run_study(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
    """Search, verify, log: the main job.

    Raises:
        BadInput: spec, model, data or storage are wrong; nothing is left behind in ``out``.
        BaselineFailed: the model as given can't be measured.
        KeyboardInterrupt: passed on; the same call goes on from there.
    """
    check_writable(out)
    work = (out / WORK).absolute()
    made = [folder for folder in (work, *work.parents) if not folder.exists()]
    work.mkdir(parents=True, exist_ok=True)
    with FolderLock(work):
        try:
            return _run_locked(problem, out, fresh=fresh, observer=observer)
        except (BadInput, BaselineFailed):
            if made and not (work / SAMPLES).exists():  # with trials in it, it is worth keeping
                _unmake(made)
            raise


def _unmake(made: Sequence[Path]) -> None:
    """Remove the folders that this run made, the innermost first with all that is in it.

    Those around it only where they are empty: by now another run may have its own in them.
    """
    inner, *around = made
    shutil.rmtree(inner, ignore_errors=True)
    with contextlib.suppress(OSError):
        for folder in around:
            folder.rmdir()


def _run_locked(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
    begun = time.monotonic()
    work = (out / WORK).absolute()
    if not fresh:
        check_name(out, problem.name)
    parts = identity(problem, inspect(resolve_model(problem, work)).files)
    parts["machine"] = Target.detect().fingerprint
    ledger = open_ledger(problem, work, parts, fresh=fresh)
    try:
        parts["storage"] = masked(problem.search.storage or "")
        parts[_GENERATION] = ledger.generation
        asked = RunState(parts, study=problem.name, trials=problem.search.trials, timeout_s=problem.search.timeout_s)
        found = None if fresh else to_go_on_with(work, asked, ledger, observer)
        loading = load_in_background()  # while models are tried, but not beside anything that is timed
        setup = prepare(problem, work, observer)
        loading.join()
        if found is None:
            ledger.join()  # another run may have started it anew while models were tried
            parts[_GENERATION] = ledger.generation
            parts[_GENERATION] = _begin_anew(out, ledger, parts, fresh=fresh, observer=observer)
        state = found or replace(asked, identity=parts)  # with the new study's generation
        state.save(work)
        _tell(ledger, observer)
        renewing = Renewing(observer, ledger)
        with Evaluator(setup, renewing) as evaluator:
            study = RunningStudy(setup, evaluator, renewing, ledger=ledger, state=state, begun=begun)
            return _search(study, out)
    finally:
        ledger.close()


def _search(study: RunningStudy, out: Path) -> StudyResult:
    try:
        study.begin()
        study.search()
        result = conclude(
            study.evaluator,
            study.book.records,
            study.ranking,
            deadline=study.deadline,
            started=study.started,
            out=out,
            ended=study.ended,
            cut_off_s=study.cut_off_s,
        )
        study.save_state()
        return study.log(result, out)
    except BaseException as exc:  # an interrupt too: what a resume needs is kept whatever ended the run
        study.stopped(by_user=isinstance(exc, KeyboardInterrupt))
        raise


def open_ledger(problem: Problem, work: Path, parts: Mapping[str, str], *, fresh: bool = False) -> Ledger:
    """The ledger of the study: in the spec's storage, where runs share it, or in the run's own folder.

    Raises:
        BadInput: the storage is wrong or can't be reached.
    """
    url = problem.search.storage
    if url is not None:
        lease = lease_s(problem.search.step_timeout_s)
        return Ledger(url, study_name(problem.name, parts), worker=Worker.here(), lease_s=lease)
    files = [work / name for name in ledger_files()]
    if fresh or not files[0].exists():  # anew, whatever state it is in; a log without its file is of no use
        for file in files:
            file.unlink(missing_ok=True)
    return Ledger(local_url(work), problem.name, worker=Worker.here())


def study_name(name: str, parts: Mapping[str, str]) -> str:
    """The study's name in a storage that several share.

    Runs work on one study only where their figures can be compared: the same question, libraries and hardware.
    """
    return f"{name} {digest(dict(parts))[:12]}"


def _begin_anew(out: Path, ledger: Ledger, parts: Mapping[str, str], *, fresh: bool, observer: Observer) -> str:
    """Clear away earlier trials, once the new question is known to be a good one; the study's generation.

    Those of a shared study are others' too: they stay, unless the user wants it fresh. So does a result in ``out``
    with its readings, until there is another one.
    """
    work = (out / WORK).absolute()
    earlier = RunState.load(work)
    if fresh or not ledger.is_shared:
        ledger.clear()
    elif earlier is not None and not earlier.changed(dict(parts)):
        mark_rejoined(out)  # this folder has finished once and joins again: its readings belong to the study
        return ledger.generation
    if fresh:  # only now: the ledger of a shared study may have refused
        _tell_removed(out, observer)
        remove_result(out)
    else:
        set_aside(out)
    (work / "state.json").unlink(missing_ok=True)  # first: cut off half-way, nothing may look like a run to go on with
    for item in work.iterdir():
        if item.name not in _KEPT:
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    return ledger.generation


def _tell_removed(out: Path, observer: Observer) -> None:
    """What ``--fresh`` takes from the folder."""
    files = files_of_result(out)
    if files:
        left = result_in(out)
        which = "what is left of a result" if left is None else f"the result {left}"
        observer.note(f"--fresh: {which} in this folder is removed, with its readings: {', '.join(files)}")
    elif RunState.load(out / WORK) is not None:
        observer.note("--fresh: the trials of the interrupted run in this folder are removed")


def _tell(ledger: Ledger, observer: Observer) -> None:
    """Which shared study this run takes part in."""
    if not ledger.is_shared:
        return
    done, others = ledger.finished, len(ledger.others())
    said = f"{counted(done, 'trial')} {'is' if done == 1 else 'are'} finished" if done else "no trial is finished yet"
    busy = f", {others} being run" if others else ""
    observer.note(f"the study {ledger.study!r} in {ledger.shown}: {said}{busy}")
