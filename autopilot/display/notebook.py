"""Progress in a notebook: one output that is updated in place, with notes under it."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from autopilot.display.progress import NOTHING_FITS, make_observer, one_line, outcome_text
from autopilot.observer import FinishedTrial, Observer
from autopilot.report.html import Html, el, joined
from autopilot.spec import format_duration
from autopilot.words import counted


class Handle(Protocol):
    """An output that can be replaced: IPython's DisplayHandle."""

    def update(self, obj: Any) -> None: ...


def progress() -> Observer:
    """What shows how far a run is, for where it is called: notebook, terminal or log.

    ``autopilot.run(spec, observer=autopilot.progress())``. In a notebook one output, updated in place; on
    a terminal a live display; elsewhere a plain line an event, on stderr.
    """
    if not in_notebook():
        return make_observer(False, sys.stderr)
    show = importlib.import_module("IPython.display").display
    return NotebookObserver(lambda first: show(first, display_id=True))


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook. Looks only at what is loaded: IPython is no dependency."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class _Shown:
    """What is displayed: HTML in a notebook, text where a front end shows no HTML."""

    def __init__(self, html: Html, text: str) -> None:
        self._html = html
        self._text = text

    def _repr_html_(self) -> str:
        return str(self._html)

    def __repr__(self) -> str:
        return self._text


class NotebookObserver:
    """Trial n of N, time left, the best so far, what is done now; stays as a summary when the run is over.

    Updated when something happens and never by a timer, for the reason of ``RichObserver``. Each update
    replaces the one before, so that a saved notebook holds the last one only.
    """

    def __init__(self, show: Callable[[_Shown], Handle], clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._began_s = clock()
        self._handle: Handle | None = None
        self._now = "starting"
        self._trial = ""
        self._counted = ""
        self._last = ""
        self._best: str | None = None
        self._deadline_s: float | None = None
        self._notes: list[str] = []
        self._tried = 0

    def phase(self, text: str) -> None:
        self._now, self._counted, self._deadline_s = text, "", None
        self._draw()

    def doing(self, text: str) -> None:
        self._now = text
        self._draw()

    def trial_started(self, number: int, total: int, seconds_left: float, recipe: str, deployment: str) -> None:
        self._counted = f"{number} of {total} done"
        self._deadline_s = self._clock() + seconds_left
        self._trial = f"{one_line(recipe)} on {one_line(deployment)}"
        self._now = "starting"
        self._draw()

    def trial_finished(self, record: FinishedTrial, best: str | None, against_budget: str) -> None:
        self._tried = record.number + 1
        self._last = f"trial {record.number}: {outcome_text(record, against_budget)}"
        self._trial, self._best, self._now = "", best, "choosing the next trial"
        self._draw()

    def note(self, text: str) -> None:
        self._notes.append(one_line(text, 400))
        self._draw()

    def finished(self) -> None:
        """Leave what remains worth reading: how much was tried, the best, the notes. Safe to call again."""
        self._now = self._trial = self._counted = self._last = ""
        self._draw(f"{counted(self._tried, 'trial')} in {format_duration(self._clock() - self._began_s)}")

    def _draw(self, ended: str = "") -> None:
        rows = self._rows(ended)
        cells = [el("tr", el("th", k, style=_CELL), el("td", v, style=_CELL)) for k, v in rows]
        notes = el("ul", *(el("li", n) for n in self._notes), style="margin:0") if self._notes else None
        text = "\n".join([*(f"{k}: {v}" for k, v in rows), *(f"note: {n}" for n in self._notes)])
        shown = _Shown(el("div", el("table", *cells), el("small", joined(notes)) if notes else None), text)
        if self._handle is None:
            self._handle = self._show(shown)
        else:
            self._handle.update(shown)

    def _rows(self, ended: str) -> list[tuple[str, str]]:
        left = format_duration(self._deadline_s - self._clock()) + " left" if self._deadline_s is not None else ""
        counted = ", ".join(part for part in (self._counted, left) if part) if self._counted else ""
        rows = [("done", ended), ("trials", counted), ("trying", self._trial), ("now", self._now)]
        if self._tried:
            rows.append(("best", self._best or NOTHING_FITS))
        rows.append(("last", self._last))
        return [(name, text) for name, text in rows if text]


_CELL = "text-align:left;vertical-align:top"
