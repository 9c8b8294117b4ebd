"""The report: a finished study as one page, as figures for notebooks, and as a notebook's display."""

from autopilot.report.content import Content
from autopilot.report.page import render_page
from autopilot.report.readings import Readings
from autopilot.report.write import FILE, write_report

__all__ = ["FILE", "Content", "Readings", "render_page", "write_report"]
