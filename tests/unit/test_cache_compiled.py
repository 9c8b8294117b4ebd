"""What runtimes compile and keep: in the cache's own folder, listed, limited and cleared like everything in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from autopilot import plugins
from autopilot.bench.child import child_environment
from autopilot.cache import Kind, Lease, SharedCache, clear, scan, trim
from autopilot.cache import compiled as module
from autopilot.cache.compiled import compiled, compiled_for, keeping
from autopilot.cache.summary import Summary
from autopilot.contracts import Session, facts_of
from autopilot.errors import BadInput
from autopilot.providers import tensorrt
from autopilot.recipe import Deployment
from autopilot.serving import load
from autopilot.target import Target
from tests.cache_support import put

NOWHERE = "/proc/nope/cache"
unwritable = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which nobody can make one")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache that runs share."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(kind: str, key: str, *, size: int = 1000, used_s: float | None = None) -> Path:
    """A program of ``size`` bytes that a runtime has put somewhere under its folder."""
    folder = compiled_for(compiled(kind), key)
    (folder / "a").mkdir()
    (folder / "a" / "kernel.so").write_bytes(b"." * size)
    if used_s is not None:
        os.utime(folder, (used_s, used_s))
    return folder


def test_what_was_compiled_is_listed_by_who_did(root: Path) -> None:
    """A user sees what the disk is full of."""
    made("inductor", "one", size=300)
    made("tensorrt", "two", size=200)
    made("tensorrt", "three", size=100)

    kinds = Summary.read().to_json()["kinds"]

    assert {name: (k["entries"], k["size_bytes"]) for name, k in kinds.items()} == {
        "inductor": (1, 300),
        "tensorrt": (2, 300),
    }
    assert [e.what for e in scan(root) if e.path.name == "one"] == ["compiled by inductor"]


def test_what_was_compiled_counts_for_the_limit_and_goes_by_its_last_use(root: Path) -> None:
    """A model's kernels take more room than the model."""
    old, new = made("inductor", "old", used_s=1000.0), made("inductor", "new", used_s=3000.0)
    put(root, "build", size=1000, used_s=2000.0)

    trim(root, 1500)

    assert (old.exists(), new.exists()) == (False, True)
    assert {e.kind for e in scan(root)} == {Kind.COMPILED}


def test_what_is_taken_again_was_used_now(root: Path) -> None:
    """Else the limit would remove what every run needs."""
    old, new = made("inductor", "old", used_s=1000.0), made("inductor", "new", used_s=3000.0)
    compiled_for(compiled("inductor"), "old")

    trim(root, 1500)

    assert (old.exists(), new.exists()) == (True, False)


def test_clearing_leaves_what_a_living_run_has_compiled(root: Path) -> None:
    """Its servers may read and write there until they end."""
    before = made("inductor", "before", used_s=1000.0)
    lease = Lease.hold(root)
    during = made("inductor", "during")

    clear(root)
    assert (before.exists(), during.exists()) == (False, True)
    lease.close()
    clear(root)

    assert not during.exists()


def test_clearing_leaves_what_a_serving_process_has_taken_and_nothing_else(root: Path) -> None:
    """It may serve for months: what others used meanwhile is not its own."""
    made("inductor", "served", used_s=1000.0)
    with keeping() as keeper:
        folder = compiled_for(compiled("inductor"), "served")
    others = [made("inductor", "other"), made("tensorrt", "other")]
    put(root, "build")

    clear(root)
    trim(root, 0)
    assert (folder / "a" / "kernel.so").exists()
    assert not any(other.exists() for other in others)
    assert {e.kind for e in scan(root)} == {Kind.COMPILED}
    keeper.close()
    clear(root)

    assert not folder.exists()
    assert not list((root / "leases").iterdir())


def test_load_that_fails_keeps_nothing(root: Path) -> None:
    """Nor is what is taken after the load kept, by a run of the same process."""

    def fails() -> None:
        with keeping():
            made("inductor", "one")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with keeping() as keeper:
        pass
    made("inductor", "two")

    clear(root)
    assert scan(root) == []
    keeper.close()


def test_fork_of_a_serving_process_leaves_the_lease_to_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that forks its workers loads once; one worker that ends takes nothing from the others."""
    with keeping() as keeper:
        folder = made("inductor", "served")
    with monkeypatch.context() as fork:
        fork.setattr(os, "getpid", lambda: -1)
        keeper.close()

    clear(root)
    assert folder.exists()
    keeper.close()


def test_loaded_bundle_keeps_its_kernels_while_its_runner_lives(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `autopilot.load`, as services load it; when the runner goes, what it kept may go."""
    taken: list[Path] = []

    def opened(artifact: Path, deployment: Deployment) -> Session:
        taken.append(made("inductor", "served"))
        return cast(Session, SimpleNamespace(output_names=("y",)))

    monkeypatch.setattr(plugins, "providers", lambda: {"toy": SimpleNamespace(open=opened)})
    told = {"name": "toy", "artifact": "model.onnx", "inputs": [], "outputs": [], "files": []}
    told["deployment"] = Deployment("toy").to_json()
    (tmp_path / "variant.json").write_text(json.dumps(told))
    runner = load(tmp_path)

    clear(root)
    assert taken[0].exists()
    del runner
    clear(root)

    assert not taken[0].exists()


@pytest.mark.parametrize("named", ["cache", "./cache", "~/cache"])
def test_children_that_work_elsewhere_compile_in_the_cache_of_their_parent(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder was another one in each server, and went with it: everything was compiled again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", named)
    ours = compiled("inductor")
    told = child_environment()
    (tmp_path / "server").mkdir()
    monkeypatch.chdir(tmp_path / "server")
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", told["AUTOPILOT_CACHE_DIR"])

    assert compiled("inductor") == ours == tmp_path / "cache" / "compiled" / "inductor"


@unwritable
def test_without_a_usable_cache_a_run_compiles_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it builds there: the children learn it from the environment that they inherit."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", NOWHERE)
    monkeypatch.setenv("AUTOPILOT_CACHE_INSTEAD", "")  # so that it is put back
    SharedCache.open(tmp_path / "own", lambda note: None)

    assert compiled_for(compiled("inductor"), "key") == tmp_path / "own" / "compiled" / "inductor" / "key"
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "mended"))
    assert compiled("inductor") == tmp_path / "mended" / "compiled" / "inductor"


def test_later_run_of_a_process_compiles_in_the_cache_that_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first run kept in its own folder would be lost with that, and unknown to all others."""
    monkeypatch.setenv("AUTOPILOT_CACHE_INSTEAD", "")  # so that it is put back
    cache = tmp_path / "disk" / "cache"
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(cache))
    cache.parent.write_bytes(b"a file where a folder should be")
    notes: list[str] = []
    SharedCache.open(tmp_path / "own", notes.append)
    assert len(notes) == 1
    assert compiled("inductor").is_relative_to(tmp_path / "own")

    cache.parent.unlink()
    SharedCache.open(tmp_path / "later", notes.append).close()

    assert len(notes) == 1
    assert compiled("inductor") == cache / "compiled" / "inductor"


@unwritable
def test_without_a_usable_cache_a_process_of_no_run_compiles_in_a_temporary_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server must start wherever it is put; the folder goes with it."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", NOWHERE)
    monkeypatch.delenv("AUTOPILOT_CACHE_INSTEAD", raising=False)

    folder = compiled_for(compiled("inductor"), "key")

    assert folder.is_dir()
    assert folder.is_relative_to(module._temporary().path)


def test_without_a_home_folder_a_winner_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of any user's number has none; a run says so and names the variable, a server has to start."""

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("AUTOPILOT_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", none)

    with keeping() as keeper:
        folder = compiled_for(compiled("inductor"), "key")
    keeper.close()

    assert folder.is_relative_to(module._temporary().path)
    with pytest.raises(BadInput, match="no home folder"):
        SharedCache.open(Path("own"), lambda note: None)


def test_engine_is_not_taken_again_where_no_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT on LD_LIBRARY_PATH has no package; its library's file tells its version, or nothing does."""
    facts, here = facts_of(tensorrt.PROVIDER), Target.detect()
    told = {"name": ""}
    monkeypatch.setattr(tensorrt, "version_in_name", lambda name: told["name"])

    assert tensorrt.engine_key(facts, here) != tensorrt.engine_key(facts, here)
    told["name"] = "libnvinfer.so.10.14.1"
    first = tensorrt.engine_key(facts, here)
    assert tensorrt.engine_key(facts, here) == first
    told["name"] = "libnvinfer.so.10.15.0"
    assert tensorrt.engine_key(facts, here) != first
