"""MLflow's pages and optuna-dashboard as a user sees them, in a real browser. Pictures stay in the test's folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from autopilot.artifact import Artifact
from autopilot.outputs import write_outputs
from autopilot.testing import fake_result
from autopilot.tracking import Goal, Store, Tracker
from autopilot.tracking.ui import latest_runs
from tests import models
from tests.integration.browser_support import FOUND, Browser

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason="no Chromium here: the pages are not looked at"),
]
ROOT = str(Path(__file__).resolve().parents[2])


def serve(folder: Path, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    """``autopilot ui`` in ``folder`` once it answers; the process and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    line = [sys.executable, "-m", "autopilot", "ui", "--port", str(port), *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, cwd=folder, env={**environment, "PYTHONPATH": ROOT}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(address, timeout=60).close()
            return process, address
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail((folder / "log").read_text())
            time.sleep(0.3)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished study, on disk and in MLflow."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        artifact = Artifact.of([models.write(models.cnn(), folder / "m.onnx")])
        out = folder / "runs" / "fake-study"
        result = write_outputs(fake_result(artifact=artifact), out, artifact)
        tracker = Tracker.start(
            result.name, spec_text="", budget=result.budget, environment={}, goals=[Goal(result.objective)]
        )
        for record in result.trials:
            tracker.log_trial(record)
        tracker.finish(result, out, out / "best")
    return folder


@pytest.fixture(scope="module")
def ui(project: Path) -> Iterator[str]:
    """The address of MLflow's UI over it."""
    process, address = serve(project)
    yield address
    process.terminate()
    process.wait(120)


def test_link_opens_the_trials_with_the_budgets_columns(
    ui: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Best first, a column for each limit, and no error about the view."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    link = latest_runs(Store.current(), ui)

    with Browser(tmp_path, (1800, 800)) as page:
        page.open(link)
        page.wait(lambda: "matching runs" in page.text() and "size_mb" in page.text())
        page.shot(tmp_path / "runs.png")
        text = page.text()

    assert link in (project / "log").read_text()
    assert "shared view" in text
    assert "Error loading" not in text
    assert text.index("001 ★ static_int8") < text.index("000 as given")
    for column in ("quality_drop", "size_mb", "place", "best"):
        assert column in text


def test_parent_run_draws_the_course_of_the_search_first(
    ui: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The section above all single figures, with the best so far."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = Store.current().client(create=False)
    experiment = client.get_experiment_by_name("fake-study")
    (run,) = client.search_runs([experiment.experiment_id], "tags.status = 'in_budget'")

    with Browser(tmp_path, (1600, 900)) as page:
        page.open(f"{ui}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}/model-metrics")
        page.wait(lambda: "best_latency_p50_ms" in page.text() and "baseline (" in page.text())
        page.shot(tmp_path / "charts.png")
        text = page.text()

    assert text.index("across_trials (5)") < text.index("baseline (")


def test_version_page_says_what_why_and_verdict(ui: str, tmp_path: Path) -> None:
    """The description is drawn as Markdown, the alias beside it."""
    with Browser(tmp_path, (1600, 900)) as page:
        page.open(f"{ui}/#/models/fake-study/versions/1")
        page.wait(lambda: "Verdict:" in page.text() and "budget_digest" in page.text())
        page.shot(tmp_path / "version.png")
        text = page.text()

    assert "champion" in text
    assert "2.50 times as fast as the model as given" in text
    assert "in budget (budget version 3)" in text
    assert "**" not in text


def test_optuna_dashboard_shows_the_run(project: Path, tmp_path: Path) -> None:
    """``ui --optuna`` without a folder: the newest run, its trials and its best one."""
    pytest.importorskip("optuna_dashboard")
    process, address = serve(project, "--optuna")
    try:
        with Browser(tmp_path, (1500, 1200)) as page:
            page.open(f"{address}/dashboard/studies/1")
            page.wait(lambda: "Best Trial (number=1)" in page.text())
            page.shot(tmp_path / "dashboard.png")
            text = page.text()
    finally:
        process.terminate()
        process.wait(120)

    assert "fake-study" in text
    assert (project / "runs" / "fake-study" / "optuna.db").is_file()
