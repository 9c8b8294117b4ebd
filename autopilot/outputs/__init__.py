"""The folder a run leaves: result.json, trials.csv, and best/ or nearest/."""

from autopilot.outputs.folder import check_writable, write_logged, write_outputs, write_result

__all__ = ["check_writable", "write_logged", "write_outputs", "write_result"]
