"""Leases: what a living process has named is known, what a dead one has is not; descriptors don't pile up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autopilot.cache import Lease, SharedCache, held
from autopilot.cache import lease as module
from autopilot.cache.lease import locked
from autopilot.errors import AutopilotError, BadInput
from tests.cache_support import new_root, put


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def test_names_are_held_until_the_lease_ends(tmp_path: Path) -> None:
    """Several leases add up; a name given twice is written once."""
    root = new_root(tmp_path)
    first, second = Lease.hold(root), Lease.hold(root)
    for lease, name in ((first, "a"), (first, "a"), (second, "b")):
        lease.pin(name)

    assert held(root).names == {"a", "b"}
    assert first.path.read_text() == "a\n"
    first.close()
    assert held(root).names == {"b"}
    second.close()
    assert held(root).names == frozenset()
    assert list((root / "leases").iterdir()) == []


def test_child_names_what_it_takes_for_its_parent(tmp_path: Path) -> None:
    """What a build child has taken is the parent's from that moment, also when the child is gone."""
    root = new_root(tmp_path)
    parent = Lease.hold(root)
    child = Lease.join(root, parent.path)

    child.pin("built")
    child.close()

    assert held(root).names == {"built"}
    parent.close()


def test_lease_of_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    """The kernel lets go of the lock; the file that is left is removed by whoever looks next."""
    root = new_root(tmp_path)
    code = f"""
import os, signal
from pathlib import Path
from autopilot.cache import Lease
Lease.hold(Path({str(root)!r})).pin("a")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=300, check=False)
    assert len(list((root / "leases").iterdir())) == 1

    assert held(root).names == frozenset()
    assert list((root / "leases").iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_descriptors_do_not_grow_with_entries(tmp_path: Path) -> None:
    """One for a lease, none for an entry, none when it is closed."""
    root = new_root(tmp_path)
    before = descriptors()
    lease = Lease.hold(root)
    for i in range(20):
        put(root, f"{i}", lease=lease)
        assert held(root).names

    assert descriptors() == before + 1
    lease.close()
    assert descriptors() == before


def test_lock_that_is_held_for_ever_is_an_error_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped remover costs half a minute and is named."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    root = new_root(tmp_path)
    lease = Lease.hold(root)
    descriptor = os.open(root / "lock", os.O_RDWR)
    module.lock_descriptor(descriptor, exclusive=True)

    with pytest.raises(AutopilotError, match="has been held for"):
        lease.pin("a")

    os.close(descriptor)
    lease.pin("a")
    lease.close()


def test_shared_lock_does_not_shut_out_others_and_the_exclusive_one_does(tmp_path: Path) -> None:
    """Users don't wait for each other."""
    root = new_root(tmp_path)
    with locked(root, exclusive=False, patience_s=0.0) as one, locked(root, exclusive=False, patience_s=0.0) as two:
        assert one
        assert two
        with locked(root, exclusive=True, patience_s=0.0) as three:
            assert not three


# ---- the cache of a run ----------------------------------------------------------------------------


def test_run_without_a_writable_cache_keeps_its_builds_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder costs the sharing, not the study; the note says what to do."""
    notes: list[str] = []

    def refuse(root: Path) -> Lease:
        raise OSError(30, "Read-only file system")

    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "shared"))
    monkeypatch.setattr(Lease, "hold", refuse)
    shared = SharedCache.open(tmp_path / "own", notes.append)

    assert shared.folder.root == tmp_path / "own"
    assert (shared.lease, shared.limit_bytes) == (None, None)
    assert "Read-only file system" in notes[0]
    assert "AUTOPILOT_CACHE_DIR names another one" in notes[0]
    shared.close()


def test_run_with_a_wrong_folder_is_told_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user named by mistake is bad input, not a reason to go elsewhere silently."""
    (tmp_path / "photo.jpg").write_text("")
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path))

    with pytest.raises(BadInput, match="holds no cache of autopilot"):
        SharedCache.open(tmp_path / "own", lambda note: None)


def test_run_leaves_no_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs, what it uses may be more; when it ends, the limit holds."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "shared"))
    monkeypatch.setenv("AUTOPILOT_CACHE_SIZE", "3kB")
    shared = SharedCache.open(tmp_path / "own", lambda note: None)
    made = [put(shared.folder.root, f"{i}", used_s=1000.0 + i, lease=shared.lease) for i in range(4)]
    shared.tidy()
    assert all(m.path.exists() for m in made)

    shared.close()

    assert [m.path.exists() for m in made] == [False, False, True, True]
