"""Kill a run at random moments, start it again until it ends, and say what was lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

# Whom a kill hits: the run itself, one of its children (a build, a server), or all of them at once.
KINDS = ("parent", "worker", "both")
# The run's own exit codes for a verdict.
VERDICTS = (0, 3, 4)
_END_S = 600.0


@dataclass
class Killed:
    """What became of a run under kills: what was ``lost`` or ``changed`` should be empty."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    starts: int = 0
    finished: int = 0
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    results: list[Mapping[str, Any]] = field(default_factory=list)
    said: str = ""

    @property
    def result(self) -> Mapping[str, Any]:
        """Of the last study; empty where it came to none."""
        return self.results[-1] if self.results else {}


def run_under_kills(
    folder: Path,
    kinds: Sequence[str],
    *,
    within_s: float,
    seed: int,
    environment: Mapping[str, str],
    watch: Callable[[Killed], None] = lambda found: None,
) -> Killed:
    """Run the spec in ``folder`` with one kill of each of ``kinds`` in turn, each up to ``within_s`` after the last.

    A run that ends before its kill was due is killed in a later life: the study is started anew with --fresh
    only where it had ended by itself, so that every kill hits a run at work. ``watch`` is told after each kill.
    """
    draw, found = random.Random(seed), Killed()
    left = list(kinds)
    known: dict[int, str] = {}
    run = _start(folder, found, environment)
    while left:
        if not _ends_within(run, draw.uniform(0.2, within_s)):
            _kill(run, left[0], draw)
            found.kills[left.pop(0)] += 1
            known = _compare(folder, known, found)
            found.finished = len(known)
            watch(found)
            if _ends_within(run, 0.2):
                if _is_over(folder):  # the kill came too late: the next run is of another study
                    known = {}
                run = _start(folder, found, environment)
        elif run.returncode in VERDICTS:
            _end(folder, known, found)
            known = {}
            run = _start(folder, found, environment, "--fresh")
        else:
            run = _start(folder, found, environment)
    run.wait(_END_S)
    for _ in range(3):  # a killed child may have ended the run: the same command goes on
        if run.returncode in VERDICTS:
            break
        run = _start(folder, found, environment)
        run.wait(_END_S)
    found.said = (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
    if run.returncode in VERDICTS:
        _end(folder, known, found)
    else:
        found.lost.append(f"the end: exit code {run.returncode}")
    return found


def problems(found: Killed, trials: int) -> list[str]:
    """What is wrong with the end of such a run; empty for what should be."""
    said = [f"lost: {text}" for text in found.lost] + [f"run again: {text}" for text in found.changed]
    for result in found.results:
        numbers = [t["number"] for t in result["trials"]]
        ids = [t["id"] for t in result["trials"]]
        if numbers != list(range(trials)):
            said.append(f"trials are numbered {numbers}, not 0 to {trials - 1}")
        if len(ids) != len(set(ids)):
            said.append("a variant stands twice")
    return said


def finished(folder: Path) -> dict[int, str]:
    """Digest of the record of each finished trial, by number: measured again it would be another one."""
    work = folder / "out" / ".autopilot"
    rows: list[tuple[int, str]] = []
    if (work / "ledger.db").exists():
        db = sqlite3.connect(work / "ledger.db", timeout=30)
        with contextlib.closing(db), contextlib.suppress(sqlite3.OperationalError):  # killed before there were tables
            rows = db.execute("SELECT number, body FROM autopilot_records").fetchall()
    return {number: hashlib.sha256(body.encode()).hexdigest() for number, body in rows}


def _is_over(folder: Path) -> bool:
    """Whether the study has ended: nothing is left to go on with."""
    try:
        state = json.loads((folder / "out" / ".autopilot" / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(state["finished"])


def _compare(folder: Path, known: Mapping[int, str], found: Killed) -> dict[int, str]:
    now = finished(folder)
    for number, digest in known.items():
        if number not in now:
            found.lost.append(f"trial {number}")
        elif now[number] != digest:
            found.changed.append(f"trial {number}")
    return now


def _end(folder: Path, known: Mapping[int, str], found: Killed) -> None:
    """A study has come to its verdict."""
    _compare(folder, known, found)
    found.results.append(json.loads((folder / "out" / "result.json").read_text(encoding="utf-8")))


def _start(folder: Path, found: Killed, environment: Mapping[str, str], *more: str) -> subprocess.Popen[bytes]:
    found.starts += 1
    with (folder / "stderr.txt").open("ab") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "autopilot", "run", "spec.yaml", "--out", "out", *more],
            cwd=folder,
            env=dict(environment),
            stdout=subprocess.DEVNULL,
            stderr=err,
        )


def _ends_within(run: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(seconds)
    return run.returncode is not None


def _kill(run: subprocess.Popen[bytes], kind: str, draw: random.Random) -> None:
    """Kill -9. A worker's kill waits for there to be one, as long as the run lives."""
    process = psutil.Process(run.pid)
    children: list[psutil.Process] = []
    while kind != "parent" and not children and run.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = process.children(recursive=True)
        time.sleep(0.01)
    if kind == "worker":
        children = [draw.choice(children)] if children else []
    if kind != "worker":
        run.send_signal(signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    if kind != "worker":
        run.wait()
