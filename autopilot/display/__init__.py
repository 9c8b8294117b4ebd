"""What people see: progress on stderr while a study runs, tables on stdout when it is done."""

from autopilot.display.progress import PlainObserver, RichObserver, make_observer
from autopilot.display.samples import render_samples
from autopilot.display.tables import render_check, render_result

__all__ = ["PlainObserver", "RichObserver", "make_observer", "render_check", "render_result", "render_samples"]
