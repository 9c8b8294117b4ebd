"""``autopilot ui``, and tracking to a server instead of a local file."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import psutil
import pytest

from autopilot.artifact import Artifact
from autopilot.errors import BadInput
from autopilot.outputs import write_outputs
from autopilot.result import StudyResult
from autopilot.testing import fake_result
from autopilot.tracking import Store, Tracker, load_result, resolve_model, start_ui
from autopilot.tracking.ui import command
from tests import models

pytestmark = pytest.mark.integration
ROOT = str(Path(__file__).resolve().parents[2])
STARTUP_S = 300.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A running UI over a new project folder: the process, its port, the folder."""
    folder, port = tmp_path_factory.mktemp("ui"), free_port()
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    code = f"import sys; from autopilot.tracking import start_ui; sys.exit(start_ui({port}))"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**environment, "PYTHONPATH": ROOT},
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + STARTUP_S
    while True:
        try:
            get(port, "health")
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail((folder / "log").read_text())
            time.sleep(0.2)
    yield process, port, folder
    if process.poll() is None:
        process.terminate()
        process.wait(120)


def get(port: int, path: str) -> bytes:
    """The body of one page of the UI."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
        return bytes(answer.read())


def test_server_takes_a_study_and_gives_it_back(
    ui: tuple[subprocess.Popen[bytes], int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs, artifacts, the logged model and its aliases travel over HTTP as they do to a file."""
    _, port, folder = ui
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.chdir(tmp_path)
    artifact = Artifact.of([models.write(models.cnn(), tmp_path / "m.onnx")])
    result = write_outputs(fake_result(artifact=artifact), tmp_path / "out", artifact)
    tracker = Tracker.start(result.name, spec_text="", budget=result.budget, environment={})

    ref = tracker.finish(result, tmp_path / "out", tmp_path / "out" / "best")

    assert (ref.tracking_uri, ref.version) == (f"http://127.0.0.1:{port}", 1)
    assert StudyResult.from_json(load_result(ref.run_id)) == replace(result, mlflow=ref)
    fetched = resolve_model(f"models:/{ref.model}@champion", tmp_path / "got")
    assert fetched.read_bytes() == artifact.path.read_bytes()
    image = models.samples(models.cnn(), 2)["image"]
    answer = mlflow.pyfunc.load_model(f"models:/{ref.model}@champion").predict({"image": image})
    assert answer["logits"].shape[0] == 2
    shown = json.loads(get(port, f"api/2.0/mlflow/runs/get?run_id={ref.run_id}"))
    assert shown["run"]["info"]["status"] == "FINISHED"
    assert json.loads(get(port, f"get-artifact?path=result.json&run_uuid={ref.run_id}"))["schema"] == 1
    assert list((folder / "mlruns" / "artifacts").rglob("result.json"))
    assert not (tmp_path / "mlruns").exists()


def test_ui_listens_on_this_machine_only_and_phones_nobody(ui: tuple[subprocess.Popen[bytes], int, Path]) -> None:
    """Bound to 127.0.0.1; the page is told to send no usage data."""
    process, port, _ = ui
    family = psutil.Process(process.pid).children(recursive=True)

    listening = {c.laddr for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN}

    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert json.loads(get(port, "ajax-api/3.0/mlflow/ui-telemetry"))["disable_ui_telemetry"] is True


def test_port_in_use_is_bad_input(ui: tuple[subprocess.Popen[bytes], int, Path]) -> None:
    """A second UI on the same port says so instead of failing somewhere inside."""
    with pytest.raises(BadInput, match=f"port {ui[1]} of 127.0.0.1"):
        start_ui(ui[1])


def test_stopping_the_ui_leaves_no_process(ui: tuple[subprocess.Popen[bytes], int, Path]) -> None:
    """The server's workers end with it. (Last test of this file: it ends the shared UI.)"""
    process, _, _ = ui
    family = psutil.Process(process.pid).children(recursive=True)
    assert family

    process.send_signal(signal.SIGTERM)

    assert process.wait(120) == 0
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def test_port_outside_the_range_is_bad_input() -> None:
    """A typing slip, named."""
    with pytest.raises(BadInput, match="70000"):
        start_ui(70000)


def test_log_holds_no_line_a_request_and_no_warning_of_libraries(
    ui: tuple[subprocess.Popen[bytes], int, Path],
) -> None:
    """Our link stays on the screen, however much is looked at."""
    log = (ui[2] / "log").read_text()

    assert "Deprecation" not in log
    assert "INFO" not in log
    assert "GET /" not in log
    assert "not provided" not in log


def test_server_store_has_a_ui_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tracking server there is nothing to start."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")

    with pytest.raises(BadInput, match="Open that address"):
        start_ui(5000)


def test_store_and_artifacts_are_passed_explicitly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mlflow's defaults (another database, another folder) never apply."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    line = command(Store.current(), 5001)

    assert line[line.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    assert line[line.index("--artifacts-destination") + 1] == (tmp_path / "mlruns" / "artifacts").as_uri()
    assert line[line.index("--workers") + 1] == "1"
