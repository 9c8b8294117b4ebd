"""The shared cache under several processes: building, using, removing and dying at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from autopilot.artifact import Artifact
from autopilot.build.cache import Cache
from autopilot.cache import Kind, Lease, clear, scan, trim
from autopilot.cache.folder import make_folder
from tests.cache_support import STEP, key_of, new_root, put
from tests.integration.run_support import UNTIMED, autopilot, environment, hurry, in_process, result_of, write_study

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
# A build as a process does it that dies in the middle of keeping it.
DYING = """
import os, signal, sys
from pathlib import Path
from autopilot.build.cache import Cache
from autopilot.cache import Lease, sealed
from tests.cache_support import STEP, key_of

root, where = Path(sys.argv[1]), sys.argv[2]
cache = Cache(root, Lease.hold(root))

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if where == "before":
    import autopilot.build.cache as module
    module.sealed_json = die
elif where == "renaming":
    Path.rename = die
with cache.staging() as folder:
    built = folder / "built"
    built.mkdir()
    (built / "model.onnx").write_bytes(b"x" * 1000)
    cache.put(key_of("a"), built, parent="p" * 64, step=STEP)
    die()
"""
# Uses entries again and again, building what is gone, and checks that what it has taken is whole until it lets go.
USING = """
import random, sys, time
from pathlib import Path
from autopilot.artifact import sha256_file
from autopilot.build.cache import Cache
from autopilot.cache import Lease, trim
from tests.cache_support import STEP, key_of, put

root, seed, until = Path(sys.argv[1]), int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
draw = random.Random(seed)
rounds = built = 0
while time.monotonic() < until or rounds < 4:  # a slow disk may need longer for so few
    lease = Lease.hold(root)
    cache = Cache(root, lease)
    taken = []
    for _ in range(3):
        name = f"entry{draw.randrange(8)}"
        artifact = cache.take(key_of(name), parent="p" * 64, step=STEP)
        if artifact is None:
            artifact = put(root, name, size=2000, lease=lease)
            built += 1
        taken.append(artifact)
        trim(root, 3000)
    for artifact in taken:
        assert sha256_file(artifact.path) == artifact.sha256, artifact
    lease.close()
    rounds += 1
print(rounds, built)
"""


def started(code: str, *arguments: Any) -> subprocess.Popen[str]:
    """A process that runs ``code``."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=environment(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("where", ["before", "renaming", "after"])
def test_build_killed_while_it_is_kept_leaves_a_whole_entry_or_none(tmp_path: Path, where: str) -> None:
    """SIGKILL before, at and after the renaming; what it left is removed at the next occasion."""
    root = new_root(tmp_path)
    process = started(DYING, root, where)
    _, err = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, err

    found = Cache(root).take(key_of("a"), parent="p" * 64, step=STEP)
    trim(root, 10**9)

    assert (found is not None) == (where == "after")
    assert [e.name for e in scan(root)] == ([key_of("a")] if found else [])
    assert list((root / "leases").iterdir()) == []


def test_two_processes_that_build_the_same_step_get_the_same(tmp_path: Path) -> None:
    """Real builds, at the same time, of one key: one entry, one digest, no error."""
    from tests import models

    root = make_folder(tmp_path / "cache").root
    path = models.write(models.encoder(), tmp_path / "model" / "model.onnx")
    code = f"""
from pathlib import Path
from autopilot.artifact import Artifact
from autopilot.bench.child import ChildLimits
from autopilot.build import build
from autopilot.build.cache import Cache
from autopilot.cache import Lease
from autopilot.recipe import Recipe, Step
root = Path({str(root)!r})
recipe = Recipe((Step("dynamic_int8"),))
model = Artifact.of([Path({str(path)!r})])
lease = Lease.hold(root)
artifact = build(recipe, model, calibration=None, cache=Cache(root, lease), threads=1, limits=ChildLimits(120.0))
print(artifact.sha256)
lease.close()
"""
    processes = [started(code) for _ in range(2)]

    answers = [p.communicate(timeout=600) for p in processes]

    assert [p.returncode for p in processes] == [0, 0], [err for _, err in answers]
    assert answers[0][0] == answers[1][0]
    assert [e.kind for e in scan(root)] == [Kind.BUILD]


def test_nothing_in_use_is_lost_while_others_remove(tmp_path: Path) -> None:
    """Three processes take, build and trim to a limit that holds one entry; this one clears all the time."""
    root = new_root(tmp_path)
    processes = [started(USING, root, seed, 4.0) for seed in range(3)]

    while any(p.poll() is None for p in processes):
        clear(root)
        time.sleep(0.01)
    answers = [p.communicate(timeout=300) for p in processes]

    assert [p.returncode for p in processes] == [0, 0, 0], [err for _, err in answers]
    assert all(int(out.split()[0]) > 3 for out, _ in answers), answers
    clear(root)
    assert scan(root) == []
    assert [p.name for p in root.iterdir() if p.name.startswith("trash-")] == []


def test_killed_users_entries_can_be_removed(tmp_path: Path) -> None:
    """Who is dead uses nothing, whatever its lease says."""
    root = new_root(tmp_path)
    code = """
import sys, time
from pathlib import Path
from autopilot.cache import Lease
from tests.cache_support import put
lease = Lease.hold(Path(sys.argv[1]))
put(lease.root, "a", lease=lease)
print("ready", flush=True)
time.sleep(60)
"""
    process = started(code, root)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    alive = clear(root)
    process.kill()
    process.communicate(timeout=300)
    dead = clear(root)

    assert (alive.entries, alive.kept_entries) == (0, 1)
    assert (dead.entries, dead.kept_entries) == (1, 0)


def test_second_run_takes_builds_and_scores_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder, the same question: nothing is built or scored, all is timed again, and the record says so."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", str(tmp_path / "cache"))
    hurry(monkeypatch)
    spec = write_study(tmp_path, search={"trials": 2, "timeout": "300s", "seed": 0}, **UNTIMED)
    first = autopilot("run", str(spec), "--out", "one", "--quiet", cwd=tmp_path)
    entries = {e.name for e in scan(tmp_path / "cache")}
    second = in_process("run", str(spec), "--out", "two", "--quiet", cwd=tmp_path)
    third = in_process("cache", "clear", cwd=tmp_path)

    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert {e.name for e in scan(tmp_path / "cache")} == set(), third.stderr
    one, two = result_of(tmp_path / "one"), result_of(tmp_path / "two")
    assert entries
    built = [t["seconds"] for t in one["trials"] if "build" in t["seconds"] and t["failure"] is None]
    reused = [t["seconds"] for t in two["trials"] if "build" in t["seconds"] and t["failure"] is None]
    assert built
    assert all(s["build_saved"] > 0 for s in reused)
    scored = [t["seconds"] for t in two["trials"] if "evaluate" in t["seconds"]]
    assert scored
    assert all(s["evaluate_saved"] > 0 and s["profile"] > 0 for s in scored)
    assert two["baseline"]["measured"]["quality"] == one["baseline"]["measured"]["quality"]
    shown = in_process("show", "two", "--samples", "--json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["agree"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which nobody can make one")
def test_run_without_a_usable_cache_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that can't be made costs a note; builds are the run's own."""
    monkeypatch.setenv("AUTOPILOT_CACHE_DIR", "/proc/self/autopilot")
    hurry(monkeypatch)
    spec = write_study(tmp_path, search={"trials": 2, "timeout": "300s"}, **UNTIMED)

    done = in_process("run", str(spec), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "the cache /proc/self/autopilot can't be used" in done.stderr
    assert "in its own folder; AUTOPILOT_CACHE_DIR names another one" in done.stderr


def test_flipped_byte_anywhere_is_found_and_rebuilt(tmp_path: Path) -> None:
    """Every file of an entry, external data and meta.json alike: a changed byte gives nothing, and a rebuild works."""
    root = new_root(tmp_path)
    cache, lease = Cache(root), Lease.hold(root)

    def build() -> Artifact:
        with cache.staging() as folder:
            built = folder / "built"
            built.mkdir()
            (built / "model.onnx").write_bytes(b"graph" * 20)
            (built / "model.onnx.data").write_bytes(b"weights" * 20)
            return cache.put(key_of("a"), built, parent="p" * 64, step=STEP)

    whole = build()
    for name in ("model.onnx", "model.onnx.data", "meta.json"):
        path = whole.path.parent / name
        for at in range(0, path.stat().st_size, 7):
            content = bytearray(path.read_bytes())
            content[min(at, len(content) - 1)] ^= 0x10  # rebuilt, a time in meta.json may have fewer digits
            path.write_bytes(content)
            taken = cache.take(key_of("a"), parent="p" * 64, step=STEP)
            assert taken is None, (name, at, content)
            assert build() == whole
    lease.close()
    assert put(root, "b").path.exists()
