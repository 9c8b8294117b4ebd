"""Arrays, splits (train, calibration, validation, test), the overlap guard, the user's hooks.

``prepare`` turns the user's files into ``Splits`` on disk; ``Split`` reads one of them back and is
all that a serving process needs: importing this package loads numpy and the standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopilot.data.hooks import apply_postprocess, load_hook
from autopilot.data.split import Split

if TYPE_CHECKING:
    from autopilot.data.preparation import Splits, prepare

__all__ = ["Split", "Splits", "apply_postprocess", "load_hook", "prepare"]


def __getattr__(name: str) -> Any:
    """Load what only the parent needs at first use."""
    if name in ("Splits", "prepare"):
        from autopilot.data import preparation as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
