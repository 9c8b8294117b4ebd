"""Observers that write: a live display on a terminal, one plain line an event elsewhere.

A trial goes by its number in the result (the baseline is 0), and "n of N done" counts those before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autopilot.observer import FinishedTrial, NullObserver, Observer
from autopilot.spec import format_duration

NOTHING_FITS = "nothing in budget so far"


def make_observer(quiet: bool, stream: TextIO) -> Observer:
    """The observer for ``stream``: none when quiet, live on a terminal, plain lines elsewhere."""
    if quiet:
        return NullObserver()
    console = Console(file=stream)
    if console.is_terminal and not console.is_dumb_terminal:
        return RichObserver(console)
    return PlainObserver(stream)


def outcome_text(record: FinishedTrial, against_budget: str) -> str:
    """How a trial ended, in one line."""
    if record.failure is not None:
        return f"failed ({record.failure.value})" + (f": {one_line(record.reason)}" if record.reason else "")
    if str(record.state) == "duplicate":
        return record.reason or "the same as an earlier trial"
    if str(record.state) == "complete":
        return against_budget or "measured"
    why = f" ({one_line(record.reason)})" if record.reason else ""
    return f"ended early{why}: {against_budget or 'no limit was reached'}"


def one_line(text: str, limit: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


class PlainObserver:
    """One line an event, for log files and pipes.

    What is being done now is left out: a trial's two lines tell enough, and a log of some
    hundred lines more is read by nobody.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._best: str | None = None

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def phase(self, text: str) -> None:
        self._say(text)

    def doing(self, text: str) -> None:
        pass

    def trial_started(self, number: int, total: int, seconds_left: float, recipe: str, deployment: str) -> None:
        left = format_duration(seconds_left)
        trying = f"{one_line(recipe)} on {one_line(deployment)}"
        self._say(f"trial {number} ({number} of {total} done, {left} left): {trying}")

    def trial_finished(self, record: FinishedTrial, best: str | None, against_budget: str) -> None:
        line = f"trial {record.number}: {outcome_text(record, against_budget)}"
        if best != self._best:
            self._best = best
            line += f"; best so far: {one_line(best or NOTHING_FITS, 400)}"
        self._say(line)

    def note(self, text: str) -> None:
        self._say(f"note: {one_line(text, 400)}")

    def finished(self) -> None:
        pass


class RichObserver:
    """A live display: n of N trials done, time left, the best so far against the budget, what is done now.

    It is redrawn when something happens and never by a timer: a thread that wakes up several times
    a second would run beside the requests that are being timed.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._phase = ""
        self._doing = "starting"
        self._number = 0
        self._done = 0
        self._total = 0
        self._deadline: float | None = None
        self._trial = ""
        self._last = ""
        self._best: str | None = None

    def phase(self, text: str) -> None:
        self._phase, self._doing = text, ""
        self._deadline = None  # the search's time does not bound what comes before and after it
        self._draw()

    def doing(self, text: str) -> None:
        self._doing = text
        self._draw()

    def trial_started(self, number: int, total: int, seconds_left: float, recipe: str, deployment: str) -> None:
        self._number, self._total, self._done = number, total, number
        self._deadline = self._clock() + seconds_left
        self._trial = f"{one_line(recipe)} on {one_line(deployment)}"
        self._phase, self._doing = "", "starting"
        self._draw()

    def trial_finished(self, record: FinishedTrial, best: str | None, against_budget: str) -> None:
        self._done = record.number + 1
        self._trial = ""
        self._last = f"trial {record.number}: {outcome_text(record, against_budget)}"
        self._best = best
        self._phase, self._doing = "", "choosing the next trial"
        self._draw()

    def note(self, text: str) -> None:
        console = self._live.console if self._live else self._console
        console.print(Text(f"note: {one_line(text, 400)}", style="yellow"))

    def finished(self) -> None:
        """Take the display away; the terminal is as before. Safe to call again."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self.renderable(), refresh=True)

    def renderable(self) -> Group:
        """The display as it stands."""
        rows = Table.grid(padding=(0, 1))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column(overflow="fold")
        if self._total:
            left = f"{format_duration(self._deadline - self._clock())} left" if self._deadline is not None else ""
            head = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=self._total, completed=self._done, width=24)
            head.add_row(Text(f"{min(self._done, self._total)} of {self._total} done"), bar, Text(left))
            rows.add_row("trials", head)
        now = ": ".join(text for text in (self._phase, self._doing) if text)
        rows.add_row("now", Text(now, style="bold"))
        if self._trial:
            rows.add_row("trying", Text(self._trial))
        if self._total:
            style = "green" if self._best else "yellow"
            rows.add_row("best", Text(self._best or NOTHING_FITS, style=style))
        if self._last:
            rows.add_row("last", Text(self._last))
        return Group(rows)
