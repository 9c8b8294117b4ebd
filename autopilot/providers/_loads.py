"""Whether an installed library can be imported: tried once, in a process that stands for those that will serve."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

# torch takes some seconds from a cold disk; a library that takes this long is stuck.
_PATIENCE_S = 120.0
_CUT = 300
# As in _openvino.runtime: an import must not report itself to anybody.
_CODE = "import sys; sys.modules['openvino_telemetry'] = None; __import__(sys.argv[1])"


@cache
def why_not_loaded(module: str) -> str | None:
    """None where ``module`` is installed and can be imported; else why not, in a few words.

    Being found says little: a folder of that name in the current one is found too, and a package whose libraries are
    missing or of another build. So it is imported as trials will do it, in a child that doesn't look into the current
    folder. Where nothing is found no process is started.
    """
    if not _is_found(module):
        return _not_installed(module)
    command = [sys.executable, "-P", "-c", _CODE, module]
    try:
        # Somewhere else than here, where a relative entry of PYTHONPATH finds nothing: trials run elsewhere as well.
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE_S, check=False, cwd=os.sep
        )
    except subprocess.TimeoutExpired:
        return f"the package {module} can't be loaded: importing it took more than {_PATIENCE_S:g} s"
    if done.returncode == 0:
        return None
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = said[-1] if said else "no output"
    if last == f"ModuleNotFoundError: No module named '{module}'":
        return _not_installed(module)
    ending = f"ended by signal {-done.returncode}: " if done.returncode < 0 else ""
    return f"the package {module} is installed but can't be loaded: {ending}{last[:_CUT].rstrip('.')}"


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a module made up in this process has no spec
        return module in sys.modules


def _not_installed(module: str) -> str:
    return f"the package {module} is not installed"
