"""Temporary folders: those of dead processes are removed, and nothing else is."""

from __future__ import annotations

import errno
import gc
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopilot import temporary
from autopilot.temporary import host, sweep, temporary_folder

# What tempfile.mkdtemp may end a name with.
ENDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=8, max_size=8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder for this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_behind(folder: Path, kind: str = "server") -> Path:
    """What a process that was killed leaves: a folder with files, and nobody's lock."""
    path = folder / f"autopilot-{kind}-{host()}-a1b2c3d4"
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "model.onnx").write_bytes(b"1")
    return path


def test_folder_is_private_and_goes_with_its_block(folder: Path) -> None:
    """It tells its kind, nobody else may look into it, and nothing is left of it."""
    with temporary_folder("server") as path:
        (path / "log").write_text("x")
        mode = path.stat().st_mode

    assert path.name.startswith("autopilot-server-")
    assert mode & 0o077 == 0
    assert list(folder.iterdir()) == []


def test_folder_that_nobody_closes_goes_with_its_owner(folder: Path) -> None:
    """An exception on the way to the block leaves nothing."""
    made = temporary_folder("server")
    assert made.path.is_dir()
    del made

    assert list(folder.iterdir()) == []


def test_folders_of_the_dead_are_removed(folder: Path) -> None:
    """Whatever is in them; how many there were is told."""
    left_behind(folder, "server"), left_behind(folder, "torch-compile")

    assert sweep() == 2
    assert list(folder.iterdir()) == []


def test_folder_of_the_living_stays(folder: Path) -> None:
    """Its own process's as another one's, however often is swept."""
    code = (
        "import sys; from autopilot.temporary import *; f = temporary_folder('x'); print(f.path, flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder)}, text=True, **pipes
    )
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    with temporary_folder("server") as ours:
        found = [sweep(), sweep()]
        both = {ours.name, theirs.name}

        assert found == [0, 0]
        assert {p.name for p in folder.iterdir()} == both
    other.kill()
    other.wait()
    assert sweep() == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(kind=st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True), end=ENDS, own=st.text("0123456789abcdef", min_size=8))
def test_folder_of_another_host_stays(folder: Path, kind: str, end: str, own: str) -> None:
    """Two machines may share a temporary folder, and locks often don't reach across: the name tells."""
    made = folder / f"autopilot-{kind}-{own}-{end}"
    made.mkdir()

    swept = sweep()

    assert made.exists() is (own != host())
    assert swept == (own == host())
    if made.exists():
        made.rmdir()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=st.from_regex(r"(autopilot-?)?[a-z0-9_.-]{1,30}", fullmatch=True).filter(lambda n: n not in (".", "..")))
def test_what_has_another_name_stays(folder: Path, name: str) -> None:
    """Users, older versions and other tools put things there too."""
    made = folder / name
    made.mkdir()

    swept = sweep()

    assert (swept, made.exists()) == (0, True)
    made.rmdir()


def test_link_is_not_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither one in the place of a folder nor one inside of it; a plain file isn't touched either."""
    precious = tmp_path_factory.mktemp("precious")
    (precious / "thesis").write_text("x")
    link = folder / f"autopilot-server-{host()}-linkedxx"
    link.symlink_to(precious)
    file = folder / f"autopilot-server-{host()}-filexxxx"
    file.write_text("x")
    (left_behind(folder) / "inside").symlink_to(precious)

    assert sweep() == 1
    assert (precious / "thesis").read_text() == "x"
    assert link.is_symlink()
    assert file.exists()


def test_folder_of_another_user_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root could remove them all."""
    path = left_behind(folder)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    assert sweep() == 0
    assert path.exists()


def test_what_cannot_be_locked_stays_and_still_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks nobody can tell whether an owner lives: folders are made all the same and never swept."""

    def none(descriptor: int, *, exclusive: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    old = left_behind(folder)
    with monkeypatch.context() as without:
        without.setattr(temporary, "lock_descriptor", none)
        made = temporary_folder("server")
        assert sweep() == 0
    assert sweep() == 1  # locks work again: what was made without stays

    assert made.path.is_dir()
    assert not old.exists()
    made.close()
    assert list(folder.iterdir()) == []


def test_folder_swept_before_it_was_locked_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two calls another process that starts may take it for a dead one's."""
    made, make = [], tempfile.mkdtemp

    def swept_once(prefix: str, dir: Path | None) -> str:
        made.append(make(prefix=prefix, dir=dir))
        if len(made) == 1:
            assert sweep() == 1
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept_once)
    with temporary_folder("server") as path:
        assert (path.is_dir(), str(path)) == (True, made[1])
        assert sweep() == 0


def test_descriptors_are_given_back(folder: Path) -> None:
    """A long search makes thousands of folders."""
    gc.collect()  # what earlier tests left open isn't closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with temporary_folder("server"):
            sweep()
        left_behind(folder)
        sweep()

    assert len(os.listdir("/proc/self/fd")) <= before


def test_many_that_start_at_once_disturb_nobody(folder: Path) -> None:
    """Folders are made, swept and closed side by side: each is there while it is used, the dead one goes once."""
    old = left_behind(folder)

    def start(number: int) -> int:
        swept = sweep()
        with temporary_folder(f"kind-{number}") as path:
            (path / "used").write_text("x")
            swept += sweep()
            assert (path / "used").read_text() == "x"
        return swept

    with ThreadPoolExecutor(8) as pool:
        swept = sum(pool.map(start, range(80)))

    assert not old.exists()
    assert list(folder.iterdir()) == []
    assert swept >= 1  # one just made counts too, where a sweep came before its lock


def test_temporary_folder_that_is_not_there_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep is nothing that the user asked for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    assert sweep() == 0


def test_folders_in_a_folder_of_the_caller_are_swept_there(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What the dead left there goes, also under the names of versions without locks; what is in use or else's stays."""
    own = tmp_path_factory.mktemp("model")
    dead = left_behind(own, "export")
    for name in ("staging-a1b2c3d4", "example-a1b2c3d4", "torch-a1b2c3d4", "staging-longer-than-that"):
        (own / name).mkdir()
    elsewhere = left_behind(folder)
    with temporary_folder("export", own) as living:
        assert sweep(own) == 1
        assert not dead.exists()
        assert sweep(own, older="staging-|example-") == 2
        assert {p.name for p in own.iterdir()} == {living.name, "torch-a1b2c3d4", "staging-longer-than-that"}

    assert elsewhere.exists()
    assert not living.exists()


def test_folder_that_was_renamed_stays_when_its_block_ends(folder: Path) -> None:
    """So is what was made put into its place."""
    with temporary_folder("export", folder) as path:
        (path / "model.onnx").write_bytes(b"1")
        path.rename(folder / "done")

    assert [p.name for p in folder.iterdir()] == ["done"]
    assert (folder / "done" / "model.onnx").read_bytes() == b"1"


def test_package_makes_its_temporary_folders_here_alone(repository: Path) -> None:
    """Others name the folder that they work in, which somebody removes."""
    call = re.compile(r"tempfile\.(mkdtemp|mkstemp|TemporaryDirectory|NamedTemporaryFile)\((?![^)]*\bdir=)")
    files = sorted((repository / "autopilot").rglob("*.py"))
    found = [str(f.relative_to(repository)) for f in files if call.search(f.read_text(encoding="utf-8"))]

    assert found == ["autopilot/temporary.py"]
