"""``autopilot init``: writes a starter spec that ``run`` accepts."""

from autopilot.init.refusals import REFUSED
from autopilot.init.starter import write_starter

__all__ = ["REFUSED", "write_starter"]
