"""Children that crash, hang, eat memory or lose their parent: classified, reaped, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autopilot.bench.child import ChildLimits, run_child
from autopilot.bench.launcher import Server
from autopilot.errors import DataError, Failure, Unsupported, VariantFailed, WorkerDied
from tests.integration.bench_support import LIMITS, ONE_THREAD, dense, samples, write_split

pytestmark = pytest.mark.integration

MODULE = "faulty_child"
FOLDER = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let child processes find the faulty module."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))


def run(how: str, workdir: Path, *, wall_s: float = 20.0, memory_bytes: int | None = None, **more: object) -> dict:
    return run_child(MODULE, {"how": how, **more}, ChildLimits(wall_s, memory_bytes), workdir=workdir)


def is_alive(pid: int) -> bool:
    """Running, and not a zombie that waits for its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def data_bytes(pid: int) -> int:
    """What a limit on data counts of a process: heap and private writable mappings."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmData:")[2].split()[0])


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    """Whether ``condition`` came true in time; the processes of these tests live longer by themselves."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def stopped_at_work(how: str, folder: Path) -> str:
    """What a child of ours wrote that was stopped for its time; a slow machine needs more of it to come that far."""
    told = folder / "told"
    for wall_s in (1.5, 6.0, 40.0):
        with pytest.raises(WorkerDied, match="stopped after") as caught:
            run(how, folder, wall_s=wall_s, pid_file=str(told))
        assert caught.value.failure is Failure.TIMEOUT
        if told.exists() and (text := told.read_text()):
            return text
    raise AssertionError("the child didn't come to its work in 40 s")


def test_answer_and_progress_come_back(tmp_path: Path) -> None:
    """A good child's answer, its progress lines, its thread bound; the work folder is empty afterwards."""
    lines: list[str] = []
    answer = run_child(MODULE, {"how": "well", "x": [1, 2]}, LIMITS, workdir=tmp_path, on_line=lines.append, threads=3)

    assert answer["echo"] == {"how": "well", "x": [1, 2]}
    assert answer["threads"] == "3"
    assert lines == ["half way"]
    assert list(tmp_path.iterdir()) == []


def test_child_inherits_no_open_files(tmp_path: Path) -> None:
    """Sockets and databases of the parent stay the parent's."""
    handles = [(tmp_path / f"f{i}").open("w") for i in range(20)]
    for handle in handles:
        os.set_inheritable(handle.fileno(), True)
    try:
        assert run("well", tmp_path)["open"] < 10
    finally:
        for handle in handles:
            handle.close()


def test_child_may_have_all_the_time_there_is(tmp_path: Path) -> None:
    """A step_timeout of 1000 hours is no error, and ends nothing."""
    assert run("well", tmp_path, wall_s=3.6e6)["echo"] == {"how": "well"}


@pytest.mark.parametrize("how", ["exit", "segfault", "bug"])
def test_crash_is_a_crash_with_its_last_words(how: str, tmp_path: Path) -> None:
    """An exit without answer, a signal, an exception that is none of ours."""
    with pytest.raises(WorkerDied) as caught:
        run(how, tmp_path)

    assert caught.value.failure is Failure.CRASH
    assert "stray print" in caught.value.log
    assert list(tmp_path.iterdir()) == []


def test_segfault_leaves_a_traceback(tmp_path: Path) -> None:
    """The log tells where in Python it was."""
    with pytest.raises(WorkerDied, match="SIGSEGV") as caught:
        run("segfault", tmp_path)

    assert "faulty_child.py" in caught.value.log


def test_allocating_beyond_the_limit_is_out_of_memory(tmp_path: Path) -> None:
    """The same request answers without the limit."""
    with pytest.raises(VariantFailed) as caught:
        run("allocate", tmp_path, memory_bytes=200_000_000, bytes=400_000_000)

    assert caught.value.failure is Failure.OOM
    assert run("allocate", tmp_path, bytes=400_000_000) == {"length": 400_000_000}


def test_a_kill_from_outside_counts_as_out_of_memory(tmp_path: Path) -> None:
    """Nobody else sends SIGKILL but the kernel's out-of-memory killer."""
    with pytest.raises(WorkerDied) as caught:
        run("kill", tmp_path)

    assert caught.value.failure is Failure.OOM


def test_hanging_child_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    """The wall-clock limit holds for grandchildren too."""
    grandchild = int(stopped_at_work("hang_with_grandchild", tmp_path))

    assert wait_until(lambda: not is_alive(grandchild))


def test_temporary_folder_of_a_stopped_child_goes_with_it(tmp_path: Path) -> None:
    """A search may stop many builds: what each was working on is not left until the next study."""
    folder = Path(stopped_at_work("hang_with_folder", tmp_path))

    assert folder.name.startswith("autopilot-build-")
    assert not folder.exists()


@pytest.mark.parametrize(("how", "kind"), [("unsupported", Unsupported), ("data", DataError)])
def test_known_errors_are_raised_again(how: str, kind: type[Exception], tmp_path: Path) -> None:
    """Class, message and hint survive the way between processes."""
    with pytest.raises(kind) as caught:
        run(how, tmp_path)

    assert caught.value.hint in {"take another model", "name them"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_its_parent(ending: signal.Signals, tmp_path: Path) -> None:
    """However the parent ends."""
    pid_file = tmp_path / "pid"
    code = (
        "from pathlib import Path; from autopilot.bench.child import *;"
        f"run_child('faulty_child', {{'how': 'hang', 'pid_file': {str(pid_file)!r}}}, ChildLimits(500.0),"
        f" workdir=Path({str(tmp_path)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parents[1])])}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
        child = int(pid_file.read_text())
        parent.send_signal(ending)
        parent.wait(timeout=60)

        assert wait_until(lambda: not is_alive(child))
    finally:
        parent.kill()
        parent.wait()


def test_server_that_dies_is_reported_and_removed(tmp_path: Path) -> None:
    """A server killed between two commands: a classified error, then closed for good."""
    split = write_split(tmp_path / "split", {"x": samples(40, 16)})
    server = Server.start(dense(tmp_path / "model.onnx"), ONE_THREAD, split=split, limits=LIMITS)
    os.kill(server.pid, signal.SIGSEGV)

    with pytest.raises(WorkerDied) as caught:
        server.block(4)
    assert caught.value.failure is Failure.CRASH
    assert not server._process.folder.exists()
    server.close()


def test_server_that_does_not_answer_is_stopped(tmp_path: Path) -> None:
    """A stopped process gives no answer; the limit ends it."""
    split = write_split(tmp_path / "split", {"x": samples(40, 16)})
    server = Server.start(dense(tmp_path / "model.onnx"), ONE_THREAD, split=split, limits=LIMITS)
    server._process.wall_s = 1.0  # it has started, which may take a slow machine longer
    os.kill(server.pid, signal.SIGSTOP)

    with pytest.raises(WorkerDied) as caught:
        server.block(4)
    assert caught.value.failure is Failure.TIMEOUT
    assert not is_alive(server.pid)


def test_server_beyond_its_memory_is_out_of_memory(tmp_path: Path) -> None:
    """A model of 64 MB under a limit of 100 MB, of which the runtime takes most: not a mere crash."""
    split = write_split(tmp_path / "split", {"x": samples(40, 2048)})
    model = dense(tmp_path / "model.onnx", width=2048, layers=4)

    with pytest.raises(VariantFailed) as caught:
        Server.start(model, ONE_THREAD, split=split, limits=ChildLimits(60.0, 100_000_000))
    assert caught.value.failure is Failure.OOM
    with Server.start(model, ONE_THREAD, split=split, limits=ChildLimits(60.0, 600_000_000)) as server:
        assert server.block(4).latency_s.size == 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux only")
def test_limit_near_what_the_runtime_itself_takes_is_never_a_crash(tmp_path: Path) -> None:
    """At some of these the runtime's library crashed while it loaded, since it doesn't look whether it got memory.

    How much it takes differs by machine and is read first. A limit just below may do: some of it is not insisted on.
    """
    split = write_split(tmp_path / "split", {"x": samples(40, 16)})
    model = dense(tmp_path / "model.onnx")
    with Server.start(model, ONE_THREAD, split=split, limits=LIMITS) as server:
        assert server.block(4).latency_s.size == 4
        taken = data_bytes(server.pid)

    def failure_under(share: float) -> Failure | None:
        limits = ChildLimits(60.0, int(taken * share))
        try:
            with Server.start(model, ONE_THREAD, split=split, limits=limits) as server:
                server.block(4)
        except VariantFailed as failed:
            return failed.failure
        return None

    assert {failure_under(share) for share in (0.3, 0.5)} == {Failure.OOM}
    assert {failure_under(share) for share in np.arange(0.65, 1.0, 0.05)} <= {Failure.OOM, None}
    assert failure_under(1.5) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux only")
def test_libraries_load_under_the_childs_limit_where_the_shell_has_a_lower_one() -> None:
    """`ulimit -Sd` of the user's: a child may take what the study gives it, while a library loads too."""
    code = (
        "import resource; from autopilot.bench.memory_limit import limit_memory\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1, resource.getrlimit(resource.RLIMIT_DATA)[1]))\n"
        "limit_memory(4_000_000_000)\n"
        "import onnxruntime; print(resource.getrlimit(resource.RLIMIT_DATA)[0])"
    )
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "4000000000", done.stderr


def test_model_that_does_not_load_is_a_build_error_with_the_log(tmp_path: Path) -> None:
    """The provider's message comes back from the serving process."""
    split = write_split(tmp_path / "split", {"x": samples(40, 16)})
    (tmp_path / "model.onnx").write_bytes(b"no model")

    with pytest.raises(VariantFailed, match="can't load the model") as caught:
        Server.start(tmp_path / "model.onnx", ONE_THREAD, split=split, limits=LIMITS)
    assert caught.value.failure is Failure.BUILD_ERROR


def test_unknown_provider_is_missing(tmp_path: Path) -> None:
    """Named, and not taken for the CPU."""
    split = write_split(tmp_path / "split", {"x": samples(40, 16)})
    model = dense(tmp_path / "model.onnx")

    with pytest.raises(VariantFailed, match="abacus") as caught:
        Server.start(model, ONE_THREAD.with_(provider="abacus"), split=split, limits=LIMITS)
    assert caught.value.failure is Failure.PROVIDER_MISSING
