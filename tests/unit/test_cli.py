"""The command line: exit codes, one paragraph for every error, stdout for the result alone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autopilot import __version__
from autopilot.cli import main
from autopilot.errors import BadInput, BaselineFailed, DataError, VariantFailed
from autopilot.observer import Observer
from autopilot.result import Status, StudyResult
from autopilot.spec import Problem
from tests.unit import results

SPEC = """\
name: demo
model: model.onnx
data: {validation: valid.npz}
metric: accuracy
budget: {latency_p50_ms: 60% of baseline}
space: cpu
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good spec, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("model.onnx", "valid.npz"):
        (tmp_path / name).write_text("")
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


Answer = Callable[[Problem, Path, Observer], StudyResult]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], list[dict[str, Any]]]:
    """Puts a function in the search's place; returns the list of its calls."""

    def install(answer: Answer) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def run_study(problem: Problem, out: Path, *, fresh: bool, observer: Observer) -> StudyResult:
            calls.append({"problem": problem, "out": out, "fresh": fresh})
            return answer(problem, out, observer)

        monkeypatch.setattr("autopilot.search.run_study", run_study)
        return calls

    return install


def finished(status: str = "in_budget") -> Answer:
    """A search that ends with ``status`` and prints where it shouldn't."""

    def answer(problem: Problem, out: Path, observer: Observer) -> StudyResult:
        observer.phase("searching")
        print("a library's chatter")
        return StudyResult.from_json(results.result(status))

    return answer


def failing(exc: BaseException) -> Answer:
    def answer(problem: Problem, out: Path, observer: Observer) -> StudyResult:
        raise exc

    return answer


def paragraph(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr; stdout is empty."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err
    return err


# ---- run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code"), [("in_budget", 0), ("no_fit", 3), ("undecided", 4)])
def test_run_exits_with_the_verdict(
    spec: Path, study: Any, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    """0 in budget, 3 nothing fits, 4 undecided; the table is on stdout."""
    study(finished(status))

    assert main(["run", str(spec)]) == code
    assert "fashion-cpu" in capsys.readouterr().out


def test_run_json_prints_the_result_and_nothing_else_on_stdout(
    spec: Path, study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Progress and what libraries print go to stderr."""
    study(finished())

    main(["run", str(spec), "--json"])

    out, err = capsys.readouterr()
    assert out == StudyResult.from_json(results.result()).text()
    assert err.splitlines() == ["searching", "a library's chatter"]


def test_result_is_on_stdout_after_a_live_display(
    spec: Path, study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever redirects stdout at a terminal gets the result, also where nobody has ended the display before."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    study(finished())

    main(["run", str(spec), "--json"])

    out, err = capsys.readouterr()
    assert out == StudyResult.from_json(results.result()).text()
    assert "\x1b[" in err


def test_run_quiet_shows_no_progress(spec: Path, study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The result is still printed."""
    study(finished())

    main(["run", str(spec), "--quiet"])

    out, err = capsys.readouterr()
    assert "IN BUDGET" in out
    assert "searching" not in err


def test_run_options_reach_the_search(spec: Path, study: Any) -> None:
    """--trials, --timeout, --out and --fresh override the spec."""
    calls = study(finished())

    main(["run", str(spec), "--trials", "7", "--timeout", "1h30m", "--out", "there", "--fresh"])
    main(["run", str(spec)])

    first, second = calls
    assert (first["problem"].search.trials, first["problem"].search.timeout_s) == (7, 5400)
    assert (first["out"], first["fresh"]) == (Path("there"), True)
    assert (second["problem"].search.trials, second["problem"].search.timeout_s) == (60, 900)
    assert (second["out"], second["fresh"]) == (Path("runs/demo"), False)


@pytest.mark.parametrize(
    ("exc", "code", "words"),
    [
        (DataError("valid.npz holds NaN.", "Clean it."), 2, ["error: valid.npz holds NaN. Clean it."]),
        (BaselineFailed("it crashed:\n\nlog\nline"), 1, ["error: it crashed: log line"]),
        (OSError(28, "No space left on device", "runs/x"), 1, ["No space left on device (runs/x)"]),
        (RuntimeError("oh"), 1, ["this is a bug: RuntimeError: oh", "--debug shows the traceback"]),
        (KeyboardInterrupt(), 130, ["interrupted: run the same command to go on"]),
    ],
)
def test_failure_is_one_paragraph_with_its_exit_code(
    spec: Path, study: Any, capsys: pytest.CaptureFixture[str], exc: BaseException, code: int, words: list[str]
) -> None:
    """Whatever ends the search, the user reads one paragraph and scripts read the code."""
    study(failing(exc))

    assert main(["run", str(spec)]) == code
    paragraph(capsys, *words)


def test_debug_shows_the_traceback(spec: Path, study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Before or after the command; the exit code stays."""
    study(failing(RuntimeError("oh")))

    for arguments in (["--debug", "run", str(spec)], ["run", str(spec), "--debug"]):
        assert main(arguments) == 1
        assert "Traceback" in capsys.readouterr().err


def test_live_display_is_taken_away_when_the_search_fails(spec: Path, study: Any, monkeypatch: Any) -> None:
    """The terminal is given back however a study ends."""
    ended: list[bool] = []

    class Watcher:
        def finished(self) -> None:
            ended.append(True)

    monkeypatch.setattr("autopilot.display.make_observer", lambda quiet, stream: Watcher())
    study(failing(RuntimeError("oh")))

    main(["run", str(spec)])

    assert ended == [True]


# ---- bad command lines and specs -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], ["rnu", "'run'"]),
        (["run"], ["SPEC"]),
        (["run", "spec.yaml", "--trails", "3"], ["--trails", "--trials"]),
        (["run", "spec.yaml", "--trials", "0"], ["--trials"]),
        (["run", "spec.yaml", "--trials", "x"], ["--trials"]),
        (["run", "spec.yaml", "--timeout", "soon"], ["--timeout", "15m"]),
        (["run", "spec.yaml", "more"], ["more"]),
        (["run", "gone.yaml"], ["gone.yaml does not exist"]),
        (["run", "model.onnx"], ["model.onnx: the file is empty"]),
        (["check", "gone.onnx", "spec.yaml"], ["gone.onnx does not exist"]),
        (["check", "model.onnx"], ["SPEC"]),
        (["show", "./gone"], ["./gone does not exist"]),
        (["show", "."], ["result.json can't be read"]),
        (["init", "gone.onnx", "-o", "new.yaml"], ["gone.onnx"]),
        (["ui", "--port", "0"], ["--port"]),
    ],
)
def test_bad_command_line_is_one_paragraph_and_exit_2(
    spec: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    """Wrong commands, options and files are named."""
    assert main(arguments) == 2
    paragraph(capsys, *words)


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ("metric: accuracy", "metrics: accuracy", ["spec.yaml:4", "'metric'"]),
        ("latency_p50_ms", "latency_p5O_ms", ["spec.yaml:5", "latency_p50_ms"]),
        ("60% of baseline", "-3", ["spec.yaml:5", "negative"]),
        ("model.onnx", "gone.onnx", ["spec.yaml:2", "gone.onnx does not exist"]),
        ("model.onnx", "net.pt2", ["spec.yaml:2", "net.pt2 does not exist"]),
        ("valid.npz", "gone.npz", ["spec.yaml:3", "gone.npz does not exist"]),
        ("space: cpu", "target: {providers: [cup]}", ["spec.yaml:6", "'cpu'"]),
        ("space: cpu", "space: cup", ["spec.yaml:6", "'cpu'"]),
        ("accuracy", "acuracy", ["spec.yaml:4", "'accuracy'"]),
    ],
)
def test_bad_spec_is_one_paragraph_and_exit_2(
    spec: Path, capsys: pytest.CaptureFixture[str], wrong: str, right: str, words: list[str]
) -> None:
    """File, line, what is wrong and what would be right; with the real plug-ins' names."""
    spec.write_text(SPEC.replace(wrong, right))

    assert main(["run", "spec.yaml"]) == 2
    paragraph(capsys, *words)
    assert not (spec.parent / "runs").exists()


def test_no_command_prints_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing asked is a bad command line, answered with all there is."""
    assert main([]) == 2
    out = capsys.readouterr().out
    for command in ("run", "check", "init", "doctor", "show", "ui"):
        assert f"  {command} " in out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As every command line tool does."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"autopilot {__version__}\n"


# ---- check, init, show, doctor, ui -----------------------------------------------------------------


class Checked:
    """What ``check_model`` answers."""

    def __init__(self, status: Status) -> None:
        self.status = status
        self.exit_code = status.exit_code

    def to_json(self) -> dict[str, Any]:
        one = results.candidate("in", "m.onnx")
        return one | {"status": self.status.value, "model": "m.onnx", "budget": results.LIMITS}


@pytest.mark.parametrize(("status", "code"), [(Status.IN_BUDGET, 0), (Status.NO_FIT, 3), (Status.UNDECIDED, 4)])
def test_check_exits_with_the_verdict(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: Status, code: int
) -> None:
    """A gate for CI: the code says whether the model fits, as a table or as JSON."""
    monkeypatch.setattr("autopilot.search.check_model", lambda model, problem, **more: Checked(status))

    assert main(["check", "model.onnx", "spec.yaml"]) == code
    assert "m.onnx" in capsys.readouterr().out
    assert main(["check", "model.onnx", "spec.yaml", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["status"] == status.value


def test_check_hands_on_where_readings_go(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--samples FILE."""
    seen: list[Any] = []

    def checked(model: Path, problem: Problem, **more: Any) -> Checked:
        seen.append(more["samples"])
        return Checked(Status.IN_BUDGET)

    monkeypatch.setattr("autopilot.search.check_model", checked)

    assert main(["check", "model.onnx", "spec.yaml", "--samples", "out.npz", "--quiet"]) == 0
    assert main(["check", "model.onnx", "spec.yaml", "--quiet"]) == 0
    assert seen == [Path("out.npz"), None]


def test_show_prints_a_folder_s_result_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Table or JSON; the exit code is the result's."""
    text = StudyResult.from_json(results.result("no_fit")).text()
    (tmp_path / "result.json").write_text(text)

    assert main(["show", str(tmp_path)]) == 3
    assert str(tmp_path / "nearest") in capsys.readouterr().out.replace("\n", "").replace(" ", "")
    assert main(["show", str(tmp_path / "result.json"), "--json"]) == 3
    assert capsys.readouterr().out == text


def test_piped_tables_have_no_trailing_blanks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They can be pasted and compared: a table's cells are filled on a terminal alone."""
    (tmp_path / "result.json").write_text(StudyResult.from_json(results.result()).text())

    main(["show", str(tmp_path)])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize(("name", "hint"), [("nosuch", "runs/NAME"), ("digits", "Did you mean runs/digits?")])
def test_show_of_what_is_neither_folder_nor_run_speaks_of_both(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most often a folder was meant; in ``runs/`` it may be."""

    def refuse(run_id: str) -> None:
        raise BadInput(f"there is no run {run_id!r}.")

    monkeypatch.setattr("autopilot.tracking.load_result", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "digits").mkdir(parents=True)

    assert main(["show", name]) == 2
    said = capsys.readouterr().err
    assert f"there is no folder {name} here" in said
    assert hint in said


def test_show_takes_an_mlflow_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A run id is looked up in the tracking store."""
    monkeypatch.setattr("autopilot.tracking.load_result", lambda run_id: results.result(name=run_id))

    assert main(["show", "0123abcd"]) == 0
    assert "0123abcd: IN BUDGET" in capsys.readouterr().out


def test_damaged_result_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A torn file is named, not traced."""
    (tmp_path / "result.json").write_text('{"schema": 1, "status"')

    assert main(["show", str(tmp_path)]) == 2
    paragraph(capsys, "result.json")


def test_init_writes_a_spec_and_says_what_next(
    digits_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next command is printed; an existing file needs --force."""
    arguments = ["init", str(digits_folder / "model.onnx"), "--data", str(digits_folder / "valid.npz")]
    arguments += ["-o", str(tmp_path / "s.yaml")]

    assert main(arguments) == 0
    assert f"autopilot run {tmp_path / 's.yaml'}" in capsys.readouterr().out
    assert main(arguments) == 2
    paragraph(capsys, "--force")
    assert main([*arguments, "--force"]) == 0


def test_ui_passes_port_and_exit_code_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's exit code is the command's."""
    ports: list[int] = []

    def start_ui(port: int, announce: Callable[[str], object]) -> int:
        ports.append(port)
        return 0

    monkeypatch.setattr("autopilot.tracking.start_ui", start_ui)

    assert main(["ui", "--port", "5001"]) == 0
    assert ports == [5001]


def test_variant_failure_in_check_is_one_paragraph(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that can't be run ends the gate with words, not with a traceback."""
    from autopilot.errors import Failure

    def broken(model: Path, problem: Problem, *, observer: Observer, samples: Path | None) -> Checked:
        raise VariantFailed(Failure.CRASH, "the server died.", "Look at it.")

    monkeypatch.setattr("autopilot.search.check_model", broken)

    assert main(["check", "model.onnx", "spec.yaml"]) != 0
    paragraph(capsys, "the server died. Look at it.")


# ---- as a process ----------------------------------------------------------------------------------


def environment(repository: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repository)}


def test_help_loads_nothing_heavy(repository: Path) -> None:
    """Whoever asks for help waits for the interpreter and the command line's own library alone."""
    script = (
        "import sys, runpy\n"
        "sys.argv = ['autopilot', '--help']\n"
        "try:\n    runpy.run_module('autopilot', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(repository),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )

    told, _, loaded = done.stdout.partition("LOADED")
    assert "Exit codes" in told
    heavy = {"numpy", "onnx", "onnxruntime", "optuna", "mlflow", "torch", "pandas", "scipy", "sklearn", "openvino"}
    assert heavy.isdisjoint(loaded.split())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_with_130(repository: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM both end it in order, with the way to go on."""
    code = (
        "import sys, time, autopilot.cli.commands as c\n"
        "from autopilot.cli import main\n"
        "def wait(debug=False):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
        "c.app.command('wait')(wait)\n"
        "sys.exit(main(['wait']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(repository),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()

    assert process.returncode == 130
    assert err == "interrupted: run the same command to go on\n"


def test_terminal_that_lacks_a_sign_does_not_cost_the_result(tmp_path: Path, repository: Path) -> None:
    """An ASCII terminal shows a question mark, not a traceback."""
    (tmp_path / "result.json").write_text(StudyResult.from_json(results.result(name="größe→klein")).text())

    done = subprocess.run(
        [sys.executable, "-m", "autopilot", "show", str(tmp_path)],
        env={**environment(repository), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0
    assert "gr??e?klein" in done.stdout


def test_closed_pipe_ends_quietly(tmp_path: Path, repository: Path) -> None:
    """``autopilot show … | head -1`` prints no traceback."""
    (tmp_path / "result.json").write_text(StudyResult.from_json(results.result()).text())
    command = f"{sys.executable} -m autopilot show {tmp_path} --json | true"

    done = subprocess.run(
        ["bash", "-c", command],
        env=environment(repository),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.stderr == ""


def test_main_works_on_replaced_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks and tests replace stdout with objects that can't be reconfigured."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)

    assert main(["--version"]) == 0
    assert __version__ in stream.getvalue()
