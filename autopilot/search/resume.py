"""Whether a run goes on with an earlier one in its folder, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autopilot.observer import Observer
from autopilot.search.ledger import Ledger
from autopilot.search.state import RunState
from autopilot.words import counted

_STAYS = "its result stays until the new one is written, and is then kept in earlier/"


def to_go_on_with(work: Path, asked: RunState, ledger: Ledger, observer: Observer) -> RunState | None:
    """The state to go on from, where ``work`` holds a run of the question ``asked``; None to start anew.

    An interrupted run goes on. A finished one does where a limit was raised and leaves something to do; else the
    same question is asked again, and all of it is measured again. Runs of a shared study join it in any case.
    """
    found = RunState.load(work)
    if found is None:
        return None
    changed = found.changed(asked.identity)
    if changed:
        which, stays = ("earlier", f"; {_STAYS}") if found.finished else ("interrupted", "")
        observer.note(f"the {which} run in this folder is not continued: {', '.join(changed)} changed{stays}")
        return None
    going_on = replace(found, finished=False, study=asked.study, trials=asked.trials, timeout_s=asked.timeout_s)
    if not found.finished:
        observer.note("going on with the interrupted run in this folder (--fresh starts anew)")
        return going_on
    if ledger.is_shared:
        return None
    done = f"{counted(ledger.finished, 'trial')} in {found.elapsed_s:.0f} s"
    going_on = replace(going_on, elapsed_s=_used_s(found))
    raised = _raised(found, asked)
    lack = _lack(found, asked, ledger.finished)
    if raised and not lack:
        observer.note(f"going on with the finished run in this folder ({done}): {', '.join(raised)}")
        return going_on
    why = lack or "neither trials nor timeout were raised"
    observer.note(f"the run in this folder is finished ({done}) and starts anew ({why}); {_STAYS}")
    return None


def _raised(before: RunState, now: RunState) -> list[str]:
    """The limits that leave more to do than ``before`` had."""
    found = []
    if before.trials is not None and now.trials is not None and now.trials > before.trials:
        found.append(f"trials raised from {before.trials} to {now.trials}")
    if before.timeout_s is not None and now.timeout_s is not None and now.timeout_s > before.timeout_s:
        found.append(f"timeout raised from {before.timeout_s:.0f} s to {now.timeout_s:.0f} s")
    return found


def _lack(before: RunState, now: RunState, done: int) -> str:
    """What would have to be given too so that there is something left to do; empty where there is."""
    if now.trials is not None and now.trials <= done:
        return f"going on takes --trials of more than {done}"
    if now.timeout_s is not None and now.timeout_s <= _used_s(before):
        return f"going on takes a --timeout of more than the {_used_s(before):.0f} s that were used"
    return ""


def _used_s(before: RunState) -> float:
    """The seconds charged to a run that goes on: not by what it ended late, so that a minute more gives a minute."""
    return before.elapsed_s if before.timeout_s is None else min(before.elapsed_s, before.timeout_s)
