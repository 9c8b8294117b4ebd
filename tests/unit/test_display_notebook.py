"""Progress in a notebook: one output, replaced in place."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from autopilot.display import PlainObserver
from autopilot.display.notebook import NotebookObserver, in_notebook, progress
from autopilot.errors import Failure


@dataclass
class Ended:
    """A finished trial."""

    number: int = 3
    state: str = "complete"
    failure: Failure | None = None
    reason: str = ""


@dataclass
class Screen:
    """What a notebook shows: outputs, each with all that it was."""

    outputs: list[list[Any]] = field(default_factory=list)

    def show(self, first: Any) -> SimpleNamespace:
        self.outputs.append([first])
        return SimpleNamespace(update=self.outputs[-1].append)


def watched() -> list[Any]:
    """All states of the one output of a short study."""
    screen, clock = Screen(), iter(range(1000))
    observer = NotebookObserver(screen.show, lambda: float(next(clock)))
    observer.phase("measuring the model as given")
    observer.trial_started(3, 40, 125.0, "static_int8(<b>)", "cpu, 1 thread")
    observer.doing("building static_int8")
    observer.trial_finished(Ended(), "latency_p50_ms 0.41", "latency_p50_ms in")
    observer.note("the machine is noisy")
    observer.finished()
    observer.finished()
    assert len(screen.outputs) == 1
    return screen.outputs[0]


def test_progress_in_a_notebook_is_one_output_updated_in_place() -> None:
    """Each event replaces what was shown; while a trial runs: how many are done, the time, what happens now."""
    states = watched()

    assert "now: measuring the model as given" in repr(states[0])
    assert "trials: 3 of 40 done" in repr(states[2])
    assert "now: building static_int8" in repr(states[2])
    assert "best: latency_p50_ms 0.41" in repr(states[3])


def test_end_of_a_run_leaves_a_summary_in_the_notebook() -> None:
    """What a saved notebook holds: how much was tried, the best, the notes; nothing of what was going on."""
    last = repr(watched()[-1])

    assert last.startswith("done: 4 trials in ")
    assert "note: the machine is noisy" in last
    assert "now:" not in last


def test_names_are_escaped_in_the_notebook() -> None:
    """A recipe's text is no markup."""
    assert "static_int8(&lt;b&gt;)" in watched()[1]._repr_html_()


def test_no_notebook_is_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython on a terminal has no kernel, and elsewhere progress is plain lines on stderr."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    assert not in_notebook()
    assert isinstance(progress(), PlainObserver)


def test_kernel_is_known_by_its_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell with a kernel belongs to a notebook."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    assert in_notebook()
