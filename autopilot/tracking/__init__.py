"""Write a study to MLflow, read it back; the model registry; the UI."""

from autopilot.tracking.champion import Champion, Ruling
from autopilot.tracking.foreground import HOST, check_free, run_until_stopped
from autopilot.tracking.history import Goal
from autopilot.tracking.read import load_result, resolve_model
from autopilot.tracking.store import LOCAL_URI, Store, load_in_background
from autopilot.tracking.tracker import Tracker
from autopilot.tracking.ui import start_ui

__all__ = [
    "HOST",
    "LOCAL_URI",
    "Champion",
    "Goal",
    "Ruling",
    "Store",
    "Tracker",
    "check_free",
    "load_in_background",
    "load_result",
    "resolve_model",
    "run_until_stopped",
    "start_ui",
]
