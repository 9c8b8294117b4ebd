"""autopilot: the fastest variant of a trained model that fits a budget, with proof.

The names below load on first use, so that ``import autopilot`` and ``autopilot --help`` stay quick.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "run": "autopilot.search",
    "check": "autopilot.search",
    "max_rate": "autopilot.search",
    "Study": "autopilot.search",
    "load": "autopilot.serving",
    "Runner": "autopilot.serving",
    "load_spec": "autopilot.search",
    "progress": "autopilot.display.notebook",
    "add_plugins": "autopilot.plugins",
    "Budget": "autopilot.budget",
    "Limit": "autopilot.budget",
    "Verdict": "autopilot.budget",
    "Recipe": "autopilot.recipe",
    "Deployment": "autopilot.recipe",
    "Variant": "autopilot.recipe",
    "Measurement": "autopilot.profile",
    "StudyResult": "autopilot.result",
    "AutopilotError": "autopilot.errors",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - the keys are the names


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'autopilot' has no attribute {name!r}")
    with warnings.catch_warnings():
        # tqdm, which optuna loads, asks in every notebook for ipywidgets: nothing here needs them.
        warnings.filterwarnings("ignore", message="IProgress not found")
        return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
