"""``autopilot init``: writes a starter spec that ``run`` accepts."""

from autopilot.init.starter import write_starter

__all__ = ["write_starter"]
