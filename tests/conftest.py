"""What all tests share: a quiet environment and the embedded example as a scratch copy."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autopilot.temporary import temporary_folder

ROOT = Path(__file__).resolve().parent.parent

# Before any test imports these libraries; child processes inherit it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# Never the user's own cache: neither is it filled by tests, nor do tests pass for what it holds.
_CACHE = temporary_folder("test-cache")
os.environ["AUTOPILOT_CACHE_DIR"] = str(_CACHE.path / "cache")
os.environ.pop("AUTOPILOT_CACHE_SIZE", None)
# Nor where a user's shell has it work; and what is drawn for a terminal is drawn as without one, however wide the one
# around the tests is and whatever a CI server pretends to be.
for _name in ("AUTOPILOT_PLUGINS", "AUTOPILOT_STORAGE", "MLFLOW_TRACKING_URI"):
    os.environ.pop(_name, None)
for _name in ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS"):
    os.environ.pop(_name, None)
os.environ.update(COLUMNS="80", LINES="25")
# Tests start processes by the hundred: without it each of them would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# On a GPU's machine the tests run with another interpreter, which may lack this: those that need it aren't run there.
if importlib.util.find_spec("hypothesis") is not None:
    import hypothesis

    # The same examples everywhere, so that none is found first on a CI server, by who changed other things. And a slow
    # machine is no error. `--hypothesis-profile default` draws others.
    hypothesis.settings.register_profile(
        "tests", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("tests")


# A shell that runs the tests in the background has them ignore Ctrl-C, which every child would inherit.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Modules of tests/integration that compare times: one after the other where tests run in several processes.
CLOCKED = frozenset(
    ("test_bench", "test_bench_faults", "test_bench_process", "test_energy_run", "test_traffic", "test_traffic_oracles")
)


# Optional, so that tests run without pytest-xdist too. Not by its --dist loadgroup, whose marks pytest 9.2 doesn't see.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, a module stays in one: its tests share what took long to make."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::")[0])
            return "clocked" if file.parent.name == "integration" and file.stem in CLOCKED else str(file)

    return ByModule(config, log)


@pytest.fixture(scope="module", autouse=True)
def a_core_each(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of every two processes of tests one has its servers on the first cores and not on the last.

    Whatever serves or scores a model is bound to the last core: studies of two processes would share that one and leave
    the others idle. What compares times stays on the last.
    """
    is_study = request.path.parent.name == "integration" and request.path.stem not in CLOCKED
    is_odd = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2 == 1
    if not (is_study and is_odd and hasattr(os, "sched_getaffinity")):
        yield
        return
    from autopilot.bench import evaluation, live, operators

    with pytest.MonkeyPatch.context() as patch:
        for module in (evaluation, live, operators):
            patch.setattr(module, "server_cores", lambda threads: sorted(os.sched_getaffinity(0))[:threads])
        yield


@pytest.fixture(autouse=True)
def _store_of_one_test() -> Iterator[None]:
    """MLflow writes the store that is chosen in this process into its environment: the next test has its own."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    if before is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of ``examples/digits`` with its data made; shared by the session, so leave it as it is."""
    folder = tmp_path_factory.mktemp("digits")
    source = ROOT / "examples" / "digits"
    for name in ("model.onnx", "spec.yaml"):
        shutil.copy(source / name, folder / name)
    loader = importlib.util.spec_from_file_location("digits_data", source / "data.py")
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    module.write_splits(folder)
    return folder
