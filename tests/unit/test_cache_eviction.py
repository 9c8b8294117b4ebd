"""What goes: the limit holds, the oldest go first, what is in use stays, killed builds leave nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilot.artifact import Artifact
from autopilot.build.cache import Cache
from autopilot.cache import Entry, Held, Kind, Lease, clear, scan, trim
from autopilot.cache import eviction as module
from autopilot.cache.eviction import older_than, over_limit
from tests.cache_support import STEP, key_of, new_root, put, put_score

NOW_S = 1e9
KINDS = st.sampled_from([Kind.BUILD, Kind.FAILURE, Kind.SCRATCH, Kind.QUALITY, Kind.COMPILED])


@st.composite
def caches(draw: st.DrawFn) -> tuple[list[Entry], Held]:
    """Entries with different names, and what of them is in use: some by name, tables and scores by their last use."""
    count = draw(st.integers(0, 12))
    sizes = draw(st.lists(st.integers(0, 100), min_size=count, max_size=count))
    uses = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    entries = [
        Entry(draw(KINDS), Path("root") / f"{i:02}", size, float(used))
        for i, (size, used) in enumerate(zip(sizes, uses, strict=True))
    ]
    held = draw(st.sets(st.sampled_from([e.name for e in entries]))) if entries else set()
    return entries, Held(frozenset(held), draw(st.sampled_from([5.0, 15.0, float("inf")])))


@settings(deadline=None)
@given(cache=caches(), limit=st.integers(0, 600))
def test_limit_holds_oldest_go_first_and_what_is_used_stays(cache: tuple[list[Entry], Held], limit: int) -> None:
    """The least that has to go, in the order of last use; only what is in use may be over the limit."""
    entries, held = cache

    gone = over_limit(entries, held, limit, NOW_S)

    left = [e for e in entries if e not in gone]
    free = [e for e in left if e not in held]
    size = sum(e.size_bytes for e in left)
    assert not [e for e in gone if e in held]
    assert size <= limit or not free
    assert all(g.used_s <= f.used_s for g in gone for f in free)
    if gone:
        # Without the last removal it would not have fitted.
        assert size + gone[-1].size_bytes > limit


@settings(deadline=None)
@given(cache=caches(), before=st.integers(0, 21))
def test_clearing_by_age_takes_all_that_is_older_and_unused(cache: tuple[list[Entry], Held], before: int) -> None:
    """Age decides alone, but for what is in use."""
    entries, held = cache

    gone = older_than(entries, held, float(before), NOW_S)

    assert {e.name for e in gone} == {e.name for e in entries if e.used_s < before and e not in held}


def names(root: Path) -> set[str]:
    """The names under which ``put`` made what is still there."""
    return {
        e.path.joinpath("model.onnx").read_bytes().rstrip(b".").decode() for e in scan(root) if e.kind is Kind.BUILD
    }


def test_trim_removes_what_was_used_longest_ago(tmp_path: Path) -> None:
    """Taking counts as a use: the entry made first is the last to go."""
    root = new_root(tmp_path)
    for i, name in enumerate("abcd"):
        put(root, name, used_s=1000.0 + i)
    sizes = [e.size_bytes for e in scan(root)]
    Cache(root).take(key_of("a"), parent="p" * 64, step=STEP)

    freed = trim(root, 2 * max(sizes))

    assert names(root) == {"a", "d"}
    assert freed.entries == 2
    assert freed.size_bytes == sum(sizes) - sum(e.size_bytes for e in scan(root))
    assert not list(root.glob("trash-*"))


def test_scores_and_tables_count_and_go_with_the_rest(tmp_path: Path) -> None:
    """One limit for builds, scores and what techniques keep; the oldest goes, whatever it is."""
    root = new_root(tmp_path)
    put(root, "model", size=500, used_s=3000.0)
    score = put_score(root, "old", size=500, used_s=1000.0)
    table = root / "scratch" / "calibration" / "t.npz"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"t" * 500)
    os.utime(table, (2000.0, 2000.0))

    trim(root, sum(e.size_bytes for e in scan(root)) - 1)
    assert (score.exists(), table.exists()) == (False, True)
    trim(root, sum(e.size_bytes for e in scan(root)) - 1)

    assert not table.exists()
    assert names(root) == {"model"}


def test_what_a_living_process_uses_is_never_removed(tmp_path: Path) -> None:
    """Neither by the limit nor by the user; when its run ends, it goes like all others."""
    root = new_root(tmp_path)
    lease = Lease.hold(root)
    used = put(root, "used", used_s=1.0, lease=lease)
    put(root, "free", used_s=2.0)

    trim(root, 0)
    put(root, "another")
    freed = clear(root)

    assert used.path.exists()
    assert names(root) == {"used"}
    assert (freed.entries, freed.kept_entries) == (1, 1)
    lease.close()
    assert trim(root, 0).entries == 1
    assert scan(root) == []


def test_table_that_a_living_run_has_used_stays_where_its_builds_fill_the_cache(tmp_path: Path) -> None:
    """Else each of its next builds would have to calibrate again."""
    root = new_root(tmp_path)
    before = put_score(root, "before", used_s=time.time() - 3600)
    lease = Lease.hold(root)
    put(root, "large", size=5000, lease=lease)
    during = put_score(root, "during")

    trim(root, 1000)

    assert (before.exists(), during.exists()) == (False, True)
    lease.close()
    trim(root, 0)
    assert not during.exists()


def test_clear_takes_an_age(tmp_path: Path) -> None:
    """What was used within the time stays."""
    root = new_root(tmp_path)
    put(root, "old", used_s=time.time() - 40 * 86400)
    put(root, "new", used_s=time.time() - 20 * 86400)

    assert clear(root, older_than_s=30 * 86400).entries == 1
    assert names(root) == {"new"}
    assert clear(root).entries == 1


def test_builds_of_killed_processes_are_removed_and_those_under_way_are_not(tmp_path: Path) -> None:
    """A staging folder that no living process has named is a killed build's, however young."""
    root = new_root(tmp_path)
    lease = Lease.hold(root)
    left = root / "builds" / "staging-dead"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    torn = root / "builds" / key_of("torn")
    torn.mkdir()
    (torn / "model.onnx").write_bytes(b"half")

    with Cache(root, lease).staging() as alive:
        trim(root, 10**9)

        assert not left.exists()
        assert not torn.exists()
        assert alive.exists()
    lease.close()


def test_file_that_is_being_written_stays_until_it_is_old(tmp_path: Path) -> None:
    """Writes under way have no lease; ten minutes are more than any takes."""
    root = new_root(tmp_path)
    parts = [root / "quality" / name for name in ("young.tmp", "old.tmp")]
    parts[0].parent.mkdir()
    for part in parts:
        part.write_bytes(b"half")
    os.utime(parts[1], (1.0, 1.0))

    clear(root)

    assert [p.exists() for p in parts] == [True, False]


def test_trash_of_a_killed_remover_is_removed_by_the_next(tmp_path: Path) -> None:
    """What was set aside is gone for everybody; only its room has to be given back."""
    root = new_root(tmp_path)
    (root / "trash-1" / "x").mkdir(parents=True)

    trim(root, 10**9)

    assert not (root / "trash-1").exists()


def test_entry_used_since_it_was_listed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and removing somebody may have used it: then it isn't the oldest any more."""
    root = new_root(tmp_path)
    artifact: Artifact = put(root, "a", used_s=1.0)
    stale = scan(root)
    Cache(root).take(key_of("a"), parent="p" * 64, step=STEP)
    monkeypatch.setattr(module, "scan", lambda folder: stale)

    assert trim(root, 0).entries == 0
    assert artifact.path.exists()


def test_second_remover_does_nothing_while_the_first_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tidying is no reason to wait."""
    monkeypatch.setattr(module, "_TRIM_PATIENCE_S", 0.0)
    root = new_root(tmp_path)
    put(root, "a")
    with module.locked(root, exclusive=True, patience_s=0.0) as got:
        assert got

        assert trim(root, 0).busy

    assert names(root) == {"a"}


def test_missing_cache_has_nothing_in_it(tmp_path: Path) -> None:
    """Looking makes no folder."""
    assert scan(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
