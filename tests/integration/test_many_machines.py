"""Several runs of one study: on one PostgreSQL server, on one file, and on one folder, where only one may be."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from autopilot.recipe import Deployment, Recipe, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.ledger import Ledger
from autopilot.search.worker import Worker
from tests.integration.postgres_support import PASSWORD, postgres
from tests.integration.run_support import UNTIMED, autopilot, environment, new_store, result_of, write_study

pytestmark = pytest.mark.integration

TRIALS = 8


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL database."""
    with postgres() as url:
        yield url


def start(folder: Path, out: str, url: str) -> subprocess.Popen[str]:
    """A run of the study in ``folder`` that keeps its trials at ``url``."""
    return subprocess.Popen(
        [sys.executable, "-m", "autopilot", "run", "spec.yaml", "--out", out],
        cwd=folder,
        env=environment(folder) | {"AUTOPILOT_STORAGE": url, "MLFLOW_TRACKING_URI": new_store(folder / f"{out}-store")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def own_trials(out: Path) -> set[int]:
    """Numbers of the trials that the run in ``out`` has measured itself."""
    return {int(p.stem) for p in (out / ".autopilot" / "samples").glob("*.npz") if p.stem.isdigit()}


def check_shared(folder: Path, ended: Mapping[str, tuple[int, str]]) -> None:
    """What holds of two runs that ended together: one list of trials, each measured once, by one of them."""
    for code, said in ended.values():
        assert code == 0, said
    trials = {out: result_of(folder / out)["trials"] for out in ended}
    ids = [[t["id"] for t in found] for found in trials.values()]
    assert ids[0] == ids[1]
    assert len(ids[0]) == len(set(ids[0])) == TRIALS
    first = next(iter(trials.values()))
    assert [t["number"] for t in first] == list(range(TRIALS))
    assert first[0]["recipe"] == []
    own = [own_trials(folder / out) for out in ended]
    assert not own[0] & own[1]
    measured = {t["number"] for t in first if t["state"] in ("complete", "pruned")}
    assert own[0] | own[1] == measured
    assert all(own)


def test_two_runs_share_one_study_on_a_server(server: str, tmp_path: Path) -> None:
    """Trials are shared, no variant is measured twice, both end with the same trials; nobody sees the password."""
    write_study(tmp_path, search={"trials": TRIALS, "timeout": "300s", "seed": 0}, **UNTIMED)
    runs = {out: start(tmp_path, out, server) for out in ("a", "b")}
    said = {out: run.communicate(timeout=800) for out, run in runs.items()}

    check_shared(tmp_path, {out: (run.returncode, said[out][1]) for out, run in runs.items()})
    assert all("the study 'small " in err for _, err in said.values())
    for text in (*said["a"], *said["b"]):
        assert "hunter2" not in text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


def test_server_claims_are_exclusive_however_many_ask_at_once(server: str) -> None:
    """Twelve that ask in the same moment: each variant goes to one, numbers have no gaps, never one too many."""
    ledgers = [Ledger(server, "race", worker=Worker.here(), lease_s=60.0) for _ in range(12)]
    variants = [Variant(Recipe(), Deployment("cpu", 1, 1, params_of({"n": n}))) for n in range(20)]
    gate = threading.Barrier(len(ledgers))
    taken: list[str] = []

    def work(mine: Ledger) -> None:
        for wanted in variants:
            gate.wait()
            if mine.claim(wanted, 15):
                taken.append(wanted.id)
                mine.finish(TrialRecord(wanted.id, -1, TrialState.COMPLETE, None, "", "quality", wanted))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == len(set(taken)) == 15
    assert [r.number for r in ledgers[0].read(0)] == list(range(15))


def test_server_time_decides_about_leases(server: str) -> None:
    """A lease of a machine that can't be looked at ends by the server's clock."""
    far = Worker("elsewhere", 1, 0.0, "far")
    wanted = Variant(Recipe(), Deployment("cpu"))
    Ledger(server, "leases", worker=far, lease_s=-1.0).claim(wanted, 9)
    Ledger(server, "leases", worker=replace(far, run="other"), lease_s=60.0).claim(
        Variant(Recipe(), Deployment("cpu", 2)), 9
    )

    assert Ledger(server, "leases", worker=Worker.here(), lease_s=60.0).recover() == [wanted]


def test_wrong_password_is_bad_input_and_stays_hidden(server: str, tmp_path: Path) -> None:
    """Exit 2, one paragraph; what was given is not repeated."""
    write_study(tmp_path)
    done = autopilot("run", "spec.yaml", "--storage", server.replace("hunter2", "hunter3"), cwd=tmp_path)

    assert done.returncode == 2
    assert "can't be reached" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "hunter" not in done.stderr
    assert PASSWORD not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_run_that_joins_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    """On one file: the second run sees the first's trials, and the one that was running is tried again."""
    write_study(tmp_path, search={"trials": 4, "timeout": "300s", "seed": 0}, **UNTIMED)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = start(tmp_path, "a", url)
    assert first.stderr is not None
    lines = iter(first.stderr)
    next(line for line in lines if line.startswith("trial 2 ("))
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=120)

    second = start(tmp_path, "b", url)
    _, said = second.communicate(timeout=800)

    assert second.returncode == 0, said
    told = re.search(r"(\d+) trials? (?:is|are) finished", said)
    assert told is not None, said
    finished = int(told[1])
    assert finished in (2, 3)  # the kill may come late on a busy machine, when the trial that had begun is over
    trials = result_of(tmp_path / "b")["trials"]
    assert [t["number"] for t in trials] == [0, 1, 2, 3]
    assert len({t["id"] for t in trials}) == 4
    assert own_trials(tmp_path / "a") <= set(range(finished))
    assert own_trials(tmp_path / "b") <= set(range(finished, 4))


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    """A folder holds one run: the second is told so and changes nothing."""
    write_study(tmp_path)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = start(tmp_path, "a", url)
    assert first.stderr is not None
    next(line for line in first.stderr if "measuring the model as given" in line)
    first.send_signal(signal.SIGSTOP)  # it holds its folder however long the second takes to start
    second = start(tmp_path, "a", url)
    _, said = second.communicate(timeout=300)
    first.kill()
    first.communicate(timeout=120)

    assert second.returncode == 2
    assert "in use by another run" in said
