"""The main job, end to end, on small models."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import autopilot as package
from tests import models
from tests.integration.run_support import (
    UNTIMED,
    autopilot,
    environment,
    hurry,
    in_process,
    labelled,
    result_of,
    store_of,
    write_study,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One finished run that several tests look at."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, **UNTIMED | {"objective": "latency_p50_ms"})
    return folder, autopilot("run", "spec.yaml", cwd=folder, own_store=True)


def test_run_meets_an_easy_budget_and_says_so(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Exit 0, the verdict on stdout, progress on stderr."""
    _, done = finished

    assert done.returncode == 0, done.stderr
    assert "latency_p50_ms" in done.stdout
    assert "trial" in done.stderr


def test_run_leaves_the_files_of_the_contract(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """result.json holds the promised keys, and best/ a model whose hash it names."""
    out = finished[0] / "runs" / "small"
    result = result_of(out)

    assert result["schema"] == 1
    assert result["status"] == "in_budget"
    assert result["best"]["verdict"] == {"quality_drop": "in", "size_mb": "in"}
    assert {"value", "low", "high", "n"} <= set(result["best"]["measured"]["latency_p50_ms"])
    assert {"value", "low", "high"} == set(result["best"]["speedup"])
    model = out / result["best"]["artifact"]
    assert hashlib.sha256(model.read_bytes()).hexdigest() == result["best"]["sha256"]
    assert {p.name for p in (out / "best").iterdir()} >= {"model.onnx", "variant.json", "README.md"}
    assert not (out / "nearest").exists()
    assert len((out / "trials.csv").read_text().splitlines()) == 1 + len(result["trials"])
    assert result["mlflow"]["run_id"] in (out / "report.html").read_text()
    assert f"models:/small/{result['mlflow']['version']}" in (out / "best" / "README.md").read_text()


def test_run_starts_with_the_model_as_given(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Trial 0 is the baseline, and no variant is measured twice."""
    trials = result_of(finished[0] / "runs" / "small")["trials"]

    assert trials[0]["recipe"] == []
    assert [t["number"] for t in trials] == list(range(len(trials)))
    measured = [t["id"] for t in trials if t["state"] != "duplicate"]
    assert len(measured) == len(set(measured))


def test_winner_answers_close_to_the_model_as_given(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """best/model.onnx is the same function, as far as the metric can tell."""
    folder = finished[0]
    stored = np.load(folder / "valid.npz")
    feed = {k: stored[k] for k in stored.files if k != "label"}

    def classes(path: Path) -> np.ndarray:
        answer = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)[0]
        return np.asarray(answer).argmax(-1)

    agreement = (classes(folder / "model.onnx") == classes(folder / "runs/small/best/model.onnx")).mean()

    # The budget admits a large drop, and int8 does more harm on some processors than on others: what is told, holds.
    drop = result_of(folder / "runs/small")["best"]["measured"]["quality_drop"]["value"]
    assert agreement >= 0.8 - max(0.0, drop)


def test_winner_is_registered_and_answers_through_mlflow(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """models:/NAME@champion predicts, from another process, with the winner's deployment."""
    folder, _ = finished
    code = (
        "import mlflow, numpy as np\n"
        "z = np.load('valid.npz'); feed = {k: z[k][:4] for k in z.files if k != 'label'}\n"
        "out = mlflow.pyfunc.load_model('models:/small@champion').predict(feed)\n"
        "print({k: v.shape for k, v in out.items()})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(folder) | {"MLFLOW_TRACKING_URI": "sqlite:///mlruns/mlflow.db"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "(4, " in done.stdout
    assert result_of(folder / "runs/small")["mlflow"]["version"] == 1


def test_show_repeats_the_result(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """show prints the table again, from the folder and as JSON."""
    folder, _ = finished

    shown = in_process("show", "runs/small", cwd=folder)
    as_json = in_process("show", "runs/small", "--json", cwd=folder)

    assert shown.returncode == 0, shown.stderr
    assert "latency_p50_ms" in shown.stdout
    assert json.loads(as_json.stdout) == result_of(folder / "runs/small")


def test_check_passes_the_winner_and_reads_its_deployment(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The CI gate takes the bundle as it is, by the command that the report prints."""
    page = (finished[0] / "runs/small/report.html").read_text()
    (printed,) = re.findall(r"<code>autopilot (check [^<]*)</code>", page)
    done = in_process(*shlex.split(html.unescape(printed)), "--json", cwd=finished[0])

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == "in_budget"
    assert told["deployment"] == result_of(finished[0] / "runs/small")["best"]["deployment"]


def test_load_runs_the_winner(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """autopilot.load gives a callable in the winner's own deployment."""
    folder = finished[0]
    stored = np.load(folder / "valid.npz")
    runner = package.load(folder / "runs/small/best")

    answer = runner({k: stored[k][:3] for k in stored.files if k != "label"})

    assert all(len(v) == 3 for v in answer.values())


def test_run_ends_3_with_the_nearest_miss_when_nothing_fits(tmp_path: Path) -> None:
    """An impossible budget gives nearest/, an explanation and exit 3."""
    write_study(tmp_path, budget={"size_mb": 0.0001, "quality_drop": 0.5}, search={"trials": 3, "timeout": "300s"})

    done = in_process("run", "spec.yaml", "--out", "out", cwd=tmp_path)

    assert done.returncode == 3, done.stderr
    result = result_of(tmp_path / "out")
    assert result["status"] == "no_fit"
    assert result["best"] is None
    assert "size_mb" in result["explanation"]
    assert (tmp_path / "out/nearest/model.onnx").exists()
    assert not (tmp_path / "out/best").exists()


def test_run_ends_4_when_an_axis_cannot_be_measured(tmp_path: Path) -> None:
    """A limit on energy without a counter is undecided, never met."""
    from autopilot.target import Target

    if Target.detect().energy_source is not None:
        pytest.skip("this machine has an energy counter")
    write_study(tmp_path, budget={"energy_mj": 5, "quality_drop": 0.5}, search={"trials": 2, "timeout": "300s"})

    done = in_process("run", "spec.yaml", "--out", "out", "--json", cwd=tmp_path)

    assert done.returncode == 4, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == "undecided"
    assert told["trials"][0]["verdict"]["energy_mj"] == "not_measurable"


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autopilot", "run", "spec.yaml", "--out", "out"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_trial(run: subprocess.Popen[str], number: int) -> None:
    """Read progress until trial ``number`` begins."""
    assert run.stderr is not None
    said = []
    for line in run.stderr:
        said.append(line)
        if re.search(rf"trial {number}\b", line):
            return
    raise AssertionError("the run ended before: " + "".join(said))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_run_goes_on_after_it_was_ended(tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """No finished trial is lost or run twice, and the same command ends with a verdict."""
    hurry(monkeypatch)
    write_study(tmp_path, name=f"ended-{how}", search={"trials": 3, "timeout": "300s", "seed": 0}, **UNTIMED)
    first = _start(tmp_path)
    _wait_for_trial(first, 2)
    first.send_signal(how)
    first.communicate(timeout=300)
    if how is signal.SIGINT:
        assert first.returncode == 130

    second = in_process("run", "spec.yaml", "--out", "out", cwd=tmp_path)

    assert second.returncode == 0, second.stderr
    assert "going on" in second.stderr
    trials = result_of(tmp_path / "out")["trials"]
    assert len(trials) == 3
    ids = [t["id"] for t in trials if t["state"] != "duplicate"]
    assert len(ids) == len(set(ids))


def test_killed_run_leaves_no_process(tmp_path: Path) -> None:
    """Children of a killed parent end by themselves."""
    write_study(tmp_path, **UNTIMED)
    run = _start(tmp_path)
    _wait_for_trial(run, 1)
    run.kill()
    run.communicate(timeout=120)

    deadline = time.monotonic() + 120
    while (left := _processes_in(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)

    assert left == []


def _processes_in(folder: Path) -> list[str]:
    """Command lines that mention ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


def test_changed_spec_starts_anew_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted run is not continued under another question."""
    hurry(monkeypatch)
    write_study(tmp_path, name="changed", search={"trials": 5, "timeout": "300s"}, **UNTIMED)
    first = _start(tmp_path)
    _wait_for_trial(first, 1)
    first.kill()
    first.communicate(timeout=120)
    changes = UNTIMED | {"budget": {"quality_drop": 0.4, "size_mb": 50}, "search": {"trials": 2, "timeout": "300s"}}
    write_study(tmp_path, name="changed", **changes)

    second = in_process("run", "spec.yaml", "--out", "out", cwd=tmp_path)

    assert second.returncode == 0, second.stderr
    assert "spec changed" in " ".join(second.stderr.split())
    assert len(result_of(tmp_path / "out")["trials"]) == 2


# More kinds in test_any_model: fixed batches, old operator sets, quantized, recurrent, with states and constants.
KINDS = {
    "external data": lambda: models.cnn(),
    "integer inputs": models.encoder,
    "constant nodes": models.constant_weights,
    "weights as inputs": models.weights_as_inputs,
}


@pytest.mark.parametrize("kind", KINDS)
def test_run_takes_models_of_many_kinds(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any ONNX model gets a verdict."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_of(tmp_path))
    hurry(monkeypatch)
    model = KINDS[kind]()
    changes = UNTIMED | {"search": {"trials": 3, "timeout": "300s"}, "budget": {"quality_drop": 0.9}}
    spec = write_study(tmp_path, model, name=kind.replace(" ", "-"), **changes)
    if kind == "external data":
        models.write(model, tmp_path / "model.onnx", external=True)

    study = package.run(spec, out=tmp_path / "out")

    assert study.result.exit_code == 0
    result = result_of(tmp_path / "out")
    assert result["status"] == "in_budget"
    crashed = [t["log"] for t in result["trials"] if t["failure"] in ("crash", "build_error")]
    assert crashed == []


def test_offline_traffic_searches_batch_sizes(tmp_path: Path) -> None:
    """Throughput is the objective and batches are tried."""
    write_study(
        tmp_path,
        name="offline",
        budget={"quality_drop": 0.9},
        objective="throughput_rps",
        traffic={"scenario": "offline"},
        search={"trials": 5, "timeout": "300s"},
    )

    done = in_process("run", "spec.yaml", "--out", "out", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    result = result_of(tmp_path / "out")
    assert len({t["deployment"]["batch"] for t in result["trials"]}) > 1
    assert result["best"]["measured"]["throughput_rps"]["value"] > 0


def test_memory_limit_ends_a_child_not_the_study(tmp_path: Path) -> None:
    """A child over its memory limit is recorded as out of memory."""
    write_study(tmp_path, search={"trials": 2, "timeout": "300s", "memory_limit_mb": 5})

    done = in_process("run", "spec.yaml", "--out", "out", cwd=tmp_path)

    assert done.returncode == 1
    assert "oom" in done.stderr
    assert "Traceback" not in done.stderr.splitlines()[-1]


def test_labelled_samples_are_mostly_right() -> None:
    """The support code gives labels the model mostly agrees with."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        arrays = labelled(models.cnn(), Path(folder), 50)

    assert len(arrays["label"]) == 50
