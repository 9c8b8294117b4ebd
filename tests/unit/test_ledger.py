"""The ledger: claims, leases and records of a study that several runs share."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopilot.errors import AutopilotError, BadInput
from autopilot.recipe import Deployment, Recipe, Variant, params_of
from autopilot.result import TrialRecord, TrialState
from autopilot.search.database import Database
from autopilot.search.ledger import Ledger
from autopilot.search.worker import Worker

HERE = Worker.here()
# On a machine that this one can't look at; and a process of this machine that is no more.
ELSEWHERE = Worker("elsewhere boot 1", 1, 0.0, "far")
DEAD = replace(HERE, started=HERE.started - 1000.0, run="dead")


def variant(n: int) -> Variant:
    return Variant(Recipe(), Deployment("cpu", 1, 1, params_of({"n": n})))


def record(n: int) -> TrialRecord:
    return TrialRecord(variant(n).id, -1, TrialState.COMPLETE, None, "", "quality", variant(n))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shared.db'}"


def ledger(url: str, worker: Worker | None = None, *, lease_s: float | None = 60.0, study: str = "s") -> Ledger:
    return Ledger(url, study, worker=worker or Worker.here(), lease_s=lease_s)


def test_variant_is_claimed_by_one_run_alone(url: str) -> None:
    """What one run tries or has tried no other run tries."""
    first, second = ledger(url), ledger(url)

    assert first.claim(variant(1), 9)
    assert not second.claim(variant(1), 9)
    assert first.finish(record(1)) == 0
    assert not second.claim(variant(1), 9)
    assert second.claim(variant(2), 9)


def test_variant_is_claimed_by_one_run_alone_however_many_ask_at_once(url: str) -> None:
    """Of eight that ask in the same moment one gets it, again and again, and numbers have no gaps."""
    ledgers = [ledger(url) for _ in range(8)]
    gate = threading.Barrier(len(ledgers))
    taken: list[tuple[int, int]] = []

    def work(me: int) -> None:
        for n in range(4):
            gate.wait()
            if ledgers[me].claim(variant(n), 99):
                taken.append((n, me))
                ledgers[me].finish(record(n))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(ledgers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(n for n, _ in taken) == [0, 1, 2, 3]
    assert [r.number for r in ledgers[0].read(0)] == [0, 1, 2, 3]


def test_claim_counts_what_others_are_running(url: str) -> None:
    """Two runs on the last trial of a study don't make one too many."""
    first, second = ledger(url), ledger(url)
    first.claim(variant(0), 2)
    first.finish(record(0))

    assert first.claim(variant(1), 2)
    assert not second.claim(variant(2), 2)
    assert second.claim(variant(2), 3)


def test_records_are_numbered_in_the_order_they_end(url: str) -> None:
    """Whoever ends first gets the smaller number; everybody reads the same, from any number on."""
    first, second = ledger(url), ledger(url)
    first.claim(variant(1), 9)
    second.claim(variant(2), 9)

    assert [second.finish(record(2)), first.finish(record(1))] == [0, 1]
    assert [r.id for r in first.read(0)] == [variant(2).id, variant(1).id]
    assert [r.number for r in second.read(1)] == [1]


def test_studies_of_one_storage_know_nothing_of_each_other(url: str) -> None:
    """Another question is another study."""
    one, other = ledger(url), ledger(url, study="t")
    one.claim(variant(1), 9)
    one.finish(record(1))

    assert other.read(0) == []
    assert other.claim(variant(1), 9)
    assert one.generation != other.generation


def test_claim_of_a_dead_process_of_this_machine_is_freed_at_once(url: str) -> None:
    """A killed run's trial is queued again by whoever looks first, and by nobody else."""
    ledger(url, DEAD).claim(variant(1), 9)
    first, second = ledger(url), ledger(url)

    assert first.recover() == [variant(1)]
    assert second.recover() == []
    assert second.recover(all_free=True) == [variant(1)]
    assert second.claim(variant(1), 9)


def test_claim_of_another_machine_is_freed_when_its_lease_ran_out(url: str) -> None:
    """A process elsewhere can't be looked up: its lease has to do."""
    ledger(url, ELSEWHERE).claim(variant(1), 9)
    ledger(url, ELSEWHERE, lease_s=-1.0).claim(variant(2), 9)

    assert ledger(url).recover() == [variant(2)]


def test_renewed_lease_holds(url: str) -> None:
    """A long trial on another machine is not taken for a lost one."""
    far = ledger(url, ELSEWHERE, lease_s=0.0)
    far.claim(variant(1), 9)
    far._lease_s = 60.0
    far._renewed -= 60.0
    far.renew()

    assert ledger(url).recover() == []
    assert ledger(url).others() == {variant(1).id}


def test_variant_that_was_cut_off_twice_is_left_alone(url: str) -> None:
    """A variant that takes machines down is not tried at every resume."""
    for run in "ab":
        ledger(url, replace(DEAD, run=run)).claim(variant(1), 9)
        freed = ledger(url).recover()

    assert freed == []
    assert not ledger(url).claim(variant(1), 9)
    assert ledger(url).lost() == {variant(1).id}


def test_result_of_a_run_that_was_given_up_is_refused(url: str) -> None:
    """Whoever was thought dead and comes back late doesn't add a second record."""
    late = ledger(url, ELSEWHERE, lease_s=-1.0)
    late.claim(variant(1), 9)
    other = ledger(url)
    other.recover()
    other.claim(variant(1), 9)

    assert late.finish(record(1)) is None
    assert other.finish(record(1)) == 0


@pytest.mark.parametrize("earlier", [0, 1])
def test_released_claim_leaves_no_trace(url: str, earlier: int) -> None:
    """A run that the user ended says nothing against its variant; what was cut off before stays counted."""
    for _ in range(earlier):
        ledger(url, DEAD).claim(variant(1), 9)
        ledger(url).recover()
    mine = ledger(url)
    mine.claim(variant(1), 9)
    mine.release()

    assert ledger(url).recover(all_free=True) == [variant(1)] * earlier
    ledger(url, replace(DEAD, run="b")).claim(variant(1), 9)
    assert ledger(url).recover() == ([] if earlier else [variant(1)])


def test_given_up_claim_is_tried_once_more(url: str) -> None:
    """A run that ends on an error of its own frees its trial without anybody having to find it dead."""
    mine = ledger(url)
    mine.claim(variant(1), 9)
    mine.give_up()

    assert ledger(url).recover(all_free=True) == [variant(1)]


def test_own_ledger_takes_every_other_holder_for_gone(url: str) -> None:
    """Whoever has locked the folder is alone: an earlier run of the same process too."""
    ledger(url, lease_s=None).claim(variant(1), 9)

    assert ledger(url, lease_s=None).recover() == [variant(1)]


def test_clear_forgets_everything_but_not_under_others(url: str) -> None:
    """--fresh on a study that others work on would pull it from under them."""
    busy, mine = ledger(url), ledger(url)
    before = mine.generation
    busy.claim(variant(1), 9)
    with pytest.raises(BadInput, match="while others work on it"):
        mine.clear()
    busy.finish(record(1))
    mine.clear()

    assert mine.read(0) == []
    assert mine.generation != before


@pytest.mark.parametrize("asked", ["claim", "finish", "read"])
def test_run_between_two_trials_does_not_go_on_in_a_study_that_was_started_anew(url: str, asked: str) -> None:
    """Its next trial would be number 0 of the new study, which is its baseline, and take the readings of its own."""
    mine, other = ledger(url), ledger(url)
    mine.claim(variant(1), 9)
    mine.finish(record(1))
    other.clear()
    steps = {"claim": lambda: mine.claim(variant(2), 9), "finish": lambda: mine.finish(record(1))}
    with pytest.raises(AutopilotError, match="was started anew by another run"):
        (steps | {"read": lambda: mine.read(0)})[asked]()

    assert other.claim(variant(1), 9)
    assert other.finish(record(1)) == 0
    mine.clear()
    assert mine.claim(variant(1), 9)


@pytest.mark.parametrize("broken", ["claim", "finish"])
def test_change_whose_answer_was_lost_is_not_made_twice(url: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a connection breaks after the commit the change is tried again, and sees that it was made."""
    change = Database.change

    def twice(self: Database, wanted: object) -> object:
        change(self, wanted)  # type: ignore[arg-type]
        return change(self, wanted)  # type: ignore[arg-type]

    mine = ledger(url)
    if broken == "finish":
        mine.claim(variant(1), 9)
    monkeypatch.setattr(Database, "change", twice)

    assert (mine.claim(variant(1), 1) is True) if broken == "claim" else (mine.finish(record(1)) == 0)
    assert len(mine.read(0)) == (broken == "finish")


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from("cfrdk")), max_size=30))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_order_of_events_records_a_variant_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, str]]
) -> None:
    """Claims, ends, releases, deaths and recoveries in any order: numbers 0, 1, …, each variant at most once."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'shared.db'}"
    runs = [ledger(url, replace(DEAD, run=str(i))) for i in range(3)]
    for run, n, event in steps:
        mine = runs[run]
        if event == "c" and mine._held is None:
            mine.claim(variant(n), 99)
        elif event == "f" and mine._held is not None:
            held = next(i for i in range(4) if variant(i).id == mine._held)
            mine.finish(record(held))
        elif event == "r":
            mine.release()
        elif event == "d":
            mine.recover()
        elif event == "k":  # killed, and another run in its place
            runs[run] = ledger(url, replace(DEAD, run=f"{run} {n}"))
    kept = ledger(url).read(0)

    assert [r.number for r in kept] == list(range(len(kept)))
    assert len({r.id for r in kept}) == len(kept)


def test_worker_is_gone_when_its_process_is() -> None:
    """Judged by process id and start time, on this machine only."""
    assert not HERE.is_gone
    assert DEAD.is_gone
    assert not ELSEWHERE.is_gone
    assert replace(HERE, pid=max(psutil.pids()) + 100_000).is_gone
    assert Worker.from_json(HERE.to_json()) == HERE
