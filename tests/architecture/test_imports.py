"""What loads what: the package is light to import, the server process and the plug-in lists likewise."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import autopilot

# Loading any of these costs tens to thousands of milliseconds.
HEAVY = {
    "torch",
    "onnxruntime",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "openvino",
    "optuna",
    "mlflow",
    "pandas",
    "plotly",
    "pyarrow",
    "scipy",
    "sklearn",
}


def loaded_by(code: str, repository: Path) -> set[str]:
    """Top-level names in ``sys.modules`` after ``code`` ran in a fresh interpreter."""
    report = "import sys; print('\\n' + ' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_import_autopilot_loads_nothing_heavy(repository: Path) -> None:
    """``import autopilot`` brings in none of the heavy libraries, and not even numpy."""
    loaded = loaded_by("import autopilot", repository)

    assert not loaded & (HEAVY | {"numpy", "yaml", "pydantic", "typer", "rich"})


def test_command_line_help_loads_nothing_heavy(repository: Path) -> None:
    """``autopilot --help`` answers without loading a library it doesn't need."""
    code = (
        "import sys\n"
        "from autopilot.cli import main\n"
        "sys.argv = ['autopilot', '--help']\n"
        "try:\n"
        "    code = main()\n"
        "except SystemExit as ended:\n"
        "    code = ended.code\n"
        "assert not code, code\n"
    )

    loaded = loaded_by(code, repository)

    assert not loaded & HEAVY


def test_listing_plugins_loads_no_framework(repository: Path) -> None:
    """Techniques, providers, meters and metrics can be listed without the libraries they use."""
    code = "from autopilot import plugins as p; p.techniques(); p.providers(); p.meters(); p.metrics()"

    loaded = loaded_by(code, repository)

    assert not loaded & (HEAVY - {"scipy"})


def test_plugin_lists_are_not_empty() -> None:
    """The test above would pass on empty folders; they aren't empty."""
    from autopilot import plugins

    assert plugins.techniques()
    assert plugins.providers()
    assert plugins.meters()
    assert plugins.metrics()


def test_server_process_loads_no_library_it_does_not_serve_with(repository: Path) -> None:
    """Importing the server's module and the CPU provider's session brings in onnxruntime and no other framework."""
    code = "import autopilot.bench.server, autopilot.providers.cpu, onnxruntime"

    loaded = loaded_by(code, repository)

    assert not loaded & (HEAVY - {"onnxruntime"})
    assert not loaded & {"pydantic", "yaml", "typer", "rich"}


@pytest.mark.parametrize("name", autopilot.__all__)
def test_public_name_can_be_had(name: str) -> None:
    """Every name in ``__all__`` exists."""
    assert getattr(autopilot, name) is not None


def test_unknown_public_name_raises() -> None:
    """A name that isn't there is an AttributeError, not an import of something else."""
    with pytest.raises(AttributeError, match="no_such_name"):
        autopilot.no_such_name  # noqa: B018


def test_every_module_can_be_imported() -> None:
    """No module of the package needs an extra to be imported."""
    found = [info.name for info in pkgutil.walk_packages(autopilot.__path__, "autopilot.")]
    names = [name for name in found if not name.endswith("__main__")]  # importing that runs the command

    for name in names:
        importlib.import_module(name)

    assert len(names) > 20
