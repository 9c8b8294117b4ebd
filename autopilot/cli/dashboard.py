"""``ui --optuna``: a finished study in optuna-dashboard."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

from autopilot.errors import BadInput


def start_dashboard(folder: Path | None, port: int, *, announce: Callable[[str], object]) -> int:
    """Serve optuna-dashboard over the study in the run folder ``folder`` until it is stopped; its exit code.

    Without a folder the newest finished run under ``runs/`` is shown.

    Raises:
        BadInput: it isn't installed, the port is in use, or there is no finished run.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise BadInput(
            "optuna-dashboard isn't installed.", "Install the extra, from a clone: pip install -e '.[dashboard]'."
        )
    from autopilot.result import StudyResult
    from autopilot.search.dashboard import FILE, export_study
    from autopilot.tracking import HOST, check_free, run_until_stopped

    check_free(port)
    chosen = folder if folder is not None else newest_run(Path("runs"))
    result = StudyResult.load(chosen)
    url = export_study(result, (chosen if chosen.is_dir() else chosen.parent) / FILE)
    line = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", url]
    line += ["--host", HOST, "--port", str(port), "--quiet"]
    announce(f"optuna-dashboard over {chosen}: http://{HOST}:{port}/dashboard/studies/1 in a few seconds")
    return run_until_stopped(line, os.environ)


def newest_run(runs: Path) -> Path:
    """The run folder in ``runs`` that was finished last.

    Raises:
        BadInput: there is none.
    """
    found = sorted(runs.glob("*/result.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise BadInput(f"there is no finished run in {runs}/.", "Name a run's folder: autopilot ui --optuna DIR.")
    return found[-1].parent
