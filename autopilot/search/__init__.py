"""The search: from a spec to a verified result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.budget import Budget
from autopilot.errors import SpecError
from autopilot.observer import NullObserver, Observer
from autopilot.plugins import vocabulary
from autopilot.profile import Measurement
from autopilot.report import FILE as REPORT
from autopilot.report import Content
from autopilot.result import Candidate, StudyResult
from autopilot.search.check import CheckResult, check_model
from autopilot.search.recompute import recompute_file, recompute_run
from autopilot.search.recomputed import Recomputation
from autopilot.search.rejudge import Rejudged, read_budget, rejudge
from autopilot.search.reporting import report_run
from autopilot.search.samples import Samples, readings_in, samples_file, verified_name
from autopilot.search.start import run_study
from autopilot.search.traffic import MAX_RATE
from autopilot.spec import Problem
from autopilot.spec import load_spec as _load_spec

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from autopilot.profile import Profile


def load_spec(path: str | Path) -> Problem:
    """Read and check a spec file.

    Raises:
        SpecError: with file, line, what is wrong and what would be right.
    """
    return _load_spec(Path(path), vocabulary())


def run(
    spec: str | Path,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    storage: str | None = None,
    observer: Observer | None = None,
) -> Study:
    """The command ``autopilot run``; returns when done.

    ``storage`` is the URL of a database that several runs share (default: ``AUTOPILOT_STORAGE``, then the spec's).

    Raises:
        BadInput: spec, model, data or storage are wrong.
        BaselineFailed: the model as given can't be measured.
    """
    storage = storage or os.environ.get("AUTOPILOT_STORAGE") or None
    problem = load_spec(spec).searching(trials=trials, timeout_s=timeout_s, storage=storage)
    folder = Path(out) if out is not None else Path("runs") / problem.name
    return Study(run_study(problem, folder, fresh=fresh, observer=observer or NullObserver()), folder)


def check(
    model: str | Path,
    spec: str | Path | Problem,
    *,
    samples: str | Path | None = None,
    observer: Observer | None = None,
) -> CheckResult:
    """The command ``autopilot check``: one model or bundle against the spec's budget, no search.

    ``model`` is an ONNX file or a bundle's folder, ``spec`` a spec file (or what ``load_spec`` gave);
    ``samples`` names a file (.npz) that all readings are written to. A model that fails to run has no
    verdict but a ``failure``.

    Raises:
        BadInput: spec, data or model are wrong, or the model can't be loaded or takes other inputs.
        BaselineFailed: the spec's own model can't be measured.
    """
    problem = spec if isinstance(spec, Problem) else load_spec(spec)
    file = None if samples is None else Path(samples)
    return check_model(Path(model), problem, observer=observer or NullObserver(), samples=file)


def max_rate(model: str | Path, spec: str | Path, *, observer: Observer | None = None) -> Measurement:
    """The highest rate of the spec's server traffic at which ``model`` keeps every latency limit in milliseconds.

    Requests a second, with the highest rate at which they certainly hold as the lower bound and the
    lowest at which one certainly breaks as the upper one; for a bundle, in its own deployment.

    Raises:
        SpecError: the spec's traffic is another, or it limits no latency in milliseconds.
        BadInput: model or data are wrong.
    """
    problem = load_spec(spec)
    limits = [x for x in problem.budget.limits if x.axis.startswith("latency_") and not x.relative]
    if not problem.traffic.is_server or not limits:
        raise SpecError(
            f"{problem.path}: the highest rate is that of server traffic under a latency limit in milliseconds.",
            "Write traffic: {scenario: server, rate_rps: 200} and a limit such as latency_p99_ms: 20.",
        )
    asked = replace(problem, objective=MAX_RATE, more_objectives=())
    return check_model(Path(model), asked, observer=observer or NullObserver()).measured[MAX_RATE]


class Study:
    """A finished study: the parts of result.json as objects."""

    def __init__(self, result: StudyResult, folder: Path) -> None:
        self.result = result
        self.folder = folder

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """Open the folder of an earlier run."""
        return cls(StudyResult.load(Path(folder)), Path(folder))

    @property
    def best(self) -> Candidate | None:
        """The winner; None when nothing fits the budget."""
        return self.result.best

    @property
    def baseline(self) -> Candidate:
        return self.result.baseline

    @property
    def verdict(self) -> Mapping[str, str]:
        """The winner's verdict by limit; empty when there is none."""
        chosen = self.result.best
        return {k: v.value for k, v in chosen.verdict.per_limit.items()} if chosen and chosen.verdict else {}

    def trials_dataframe(self) -> pd.DataFrame:
        """One row a trial, the columns of trials.csv."""
        return self.result.trials_dataframe()

    def samples(self, trial: int, *, verified: bool = False) -> Profile:
        """All raw readings of a trial, or with ``verified`` of the second measurement of a finalist.

        Raises:
            BadInput: none were kept.
        """
        name = verified_name(trial) if verified else str(trial)
        return Samples.load(samples_file(readings_in(self.folder), name)).profile

    def recomputed(self) -> Recomputation:
        """All figures and verdicts again, from the raw readings: the command ``autopilot show --samples``."""
        return recompute_run(self.folder)

    def plot_pareto(self, x: str | None = None, y: str | None = None) -> go.Figure:
        """Every trial on two axes with intervals and the front; without axes: the objective against the quality."""
        from autopilot.report.plots import plot_pareto

        return plot_pareto(self.result, x, y)

    def plot_history(self) -> go.Figure:
        """The objective of every trial in order, and the best in budget so far."""
        from autopilot.report.plots import plot_history

        return plot_history(self.result)

    def plot_importance(self, axis: str | None = None) -> go.Figure:
        """What each setting explains of ``axis`` (the objective) beyond chance."""
        from autopilot.report.plots import plot_importance

        return plot_importance(self.result, axis)

    def plot_budget(self) -> go.Figure:
        """How much of each limit the chosen variant uses, with intervals."""
        from autopilot.report.plots import plot_budget

        return plot_budget(self.result)

    def rejudge(self, budget: Budget | Mapping[str, Any] | str | Path) -> Rejudged:
        """Which recorded variant is best under another budget, without new measuring; what would need some.

        ``budget``: limits as a spec writes them, or a YAML file with ``budget:`` in it.

        Raises:
            BadInput: the budget is wrong.
        """
        return rejudge(self.result, read_budget(budget, self.result), self.folder)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page of ``autopilot report``, by default as report.html in the run's folder; its path.

        Raises:
            BadInput: the file can't be written.
        """
        return report_run(self.result, self.folder, self.folder / REPORT if path is None else Path(path))

    def _repr_html_(self) -> str:
        from autopilot.report.notebook import render_notebook

        return render_notebook(Content(self.result))

    def __repr__(self) -> str:
        return f"<autopilot.Study {self.result.name!r}: {self.result.status.value}, {len(self.result.trials)} trials>"


__all__ = [
    "CheckResult",
    "Recomputation",
    "Rejudged",
    "Study",
    "check",
    "check_model",
    "load_spec",
    "max_rate",
    "recompute_file",
    "recompute_run",
    "run",
    "run_study",
]
