"""How a child process's ending is read: pure parts; real children are in tests/integration/test_bench_faults.py."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

import pytest

from autopilot.bench import childside
from autopilot.bench.child import TAIL_BYTES, _Output, child_environment, died, is_out_of_memory
from autopilot.errors import AutopilotError, DataError, Failure, ModelError, Unsupported, VariantFailed


@pytest.mark.parametrize(
    ("returncode", "log", "failure"),
    [
        (-signal.SIGKILL, "", Failure.OOM),
        (-signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'", Failure.OOM),
        (1, "MemoryError", Failure.OOM),
        (1, "onnxruntime: Failed to allocate memory for requested buffer of size 8", Failure.OOM),
        (-signal.SIGSEGV, "Fatal Python error: Segmentation fault", Failure.CRASH),
        (1, "ValueError: bug", Failure.CRASH),
        (0, "", Failure.CRASH),
    ],
)
def test_ending_without_answer_is_classified(returncode: int, log: str, failure: Failure) -> None:
    """Memory and crashes are told apart: only crashes are worth a second try."""
    error = died("the child", returncode, log)

    assert error.failure is failure
    assert error.log == log


def test_children_put_temporary_folders_where_their_parent_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative to where they work there is no such folder: they would fill the system's own, and nobody swept there."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", "scratch")
    monkeypatch.setattr(tempfile, "tempdir", None)

    assert child_environment()["TMPDIR"] == str(tmp_path / "scratch") == tempfile.gettempdir()


def test_ending_by_signal_is_named() -> None:
    """A person reads SIGSEGV, not -11."""
    assert "SIGSEGV" in str(died("the child", -signal.SIGSEGV, "x"))


def test_a_clean_log_is_not_out_of_memory() -> None:
    """Only the allocators' own words count."""
    assert not is_out_of_memory(1, "a memory-mapped file; oom killer disabled")


def test_output_keeps_a_bounded_tail() -> None:
    """A chatty library can't fill the parent's memory, with line ends or without."""
    output = _Output(None)
    for i in range(2000):
        output.feed(f"line {i}\n".encode())
    output.feed(b"x" * 100_000)

    assert len(output.tail) <= TAIL_BYTES

    output.feed(b"\nlast words\n")
    assert output.tail.endswith("last words")


def test_progress_is_handed_on_and_kept_out_of_the_log() -> None:
    """Lines split over several reads arrive whole."""
    seen: list[str] = []
    output = _Output(seen.append)
    mark = childside.PROGRESS_MARK.encode()
    output.feed(mark[:4])
    output.feed(mark[4:] + b"calibrating\nnoise\n")

    assert seen == ["calibrating"]
    assert output.tail == "noise"


@pytest.mark.parametrize(
    "error",
    [
        Unsupported("no MatMul", "take another"),
        VariantFailed(Failure.WRONG_NUMERICS, "differs", "leave it out"),
        DataError("labels", "fix them"),
        ModelError("truncated"),
        AutopilotError("other"),
    ],
)
def test_error_travels_with_its_class(error: AutopilotError) -> None:
    """The parent raises what the child raised; variant failures gain the log."""
    again = childside.error_from_json(childside.error_to_json(error), "log tail")

    assert type(again) is type(error)
    assert (again.message, again.hint) == (error.message, error.hint)
    if isinstance(error, VariantFailed):
        assert isinstance(again, VariantFailed)
        assert again.failure is error.failure
        assert again.log == "log tail"
