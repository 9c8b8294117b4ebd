"""Kill -9 of a run that has servers: their temporary folders are removed by whoever starts next."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.run_support import UNTIMED, environment, write_study

pytestmark = pytest.mark.integration

_BEGIN_S = 300.0


def folders(temporary: Path, kind: str = "*") -> list[str]:
    """Names of the package's folders in ``temporary``."""
    return sorted(path.name for path in temporary.glob(f"autopilot-{kind}-*"))


def killed_while_serving(study: Path, temporary: Path) -> None:
    """Start the study and kill it, and all that it started, once a serving process has written into its folder."""
    out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "autopilot", "run", "spec.yaml", "--out", "out"]
    run = subprocess.Popen(command, cwd=study, env=environment(study) | {"TMPDIR": str(temporary)}, **out)
    deadline = time.monotonic() + _BEGIN_S
    while not any(temporary.glob("autopilot-server-*/log")) and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.01)
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    psutil.wait_procs(children, timeout=120)


def test_folders_of_a_killed_run_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """SIGKILL leaves no process time to tidy up: the next run does it, and leaves nothing of its own."""
    study, temporary = tmp_path / "study", tmp_path / "temporary"
    study.mkdir(), temporary.mkdir()
    write_study(study, name="killed", search={"trials": 2, "timeout": "300s", "seed": 0}, **UNTIMED)
    killed_while_serving(study, temporary)
    left = folders(temporary, "server")

    done = subprocess.run(
        [sys.executable, "-m", "autopilot", "run", "spec.yaml", "--out", "out"],
        cwd=study,
        env=environment(study) | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert left != []
    assert done.returncode == 0, done.stderr
    assert folders(temporary) == []
