"""What-if: which recorded variant is best under another budget, and what would have to be measured anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from autopilot import plugins
from autopilot.budget import Budget, Judgement, Limit, Verdict, parse_fraction
from autopilot.errors import BadInput, SpecError
from autopilot.profile import Measurement
from autopilot.report.points import distinct, quality_rises, rises
from autopilot.result import StudyResult, TrialRecord, TrialState
from autopilot.search.ranking import Ranking
from autopilot.search.samples import Samples, readings_in, samples_file, verified_name
from autopilot.spec.source import nearest


@dataclass(frozen=True, slots=True, repr=False)
class Rejudged:
    """Recorded figures under ``budget``.

    ``verdicts``: by trial number. ``best``: the trial in budget with the best objective, None without any.
    ``verified``: whether its figures are those of a second measurement, in fresh processes. ``unmeasured``: by
    trial number, limited axes without a figure in trials that nothing certain speaks against: those trials
    would have to be measured anew.
    """

    budget: Budget
    objective: str
    verdicts: Mapping[int, Verdict]
    best: TrialRecord | None
    verified: bool
    unmeasured: Mapping[int, tuple[str, ...]]

    def __repr__(self) -> str:
        return f"<Rejudged: {self.text}>"

    @property
    def exit_code(self) -> int:
        """0 where a trial is in budget, 3 where all are certainly out, 4 where some may fit."""
        if self.best is not None:
            return 0
        return 3 if all(v.overall is Judgement.OUT for v in self.verdicts.values()) else 4

    @property
    def text(self) -> str:
        """What it comes to, in a few sentences."""
        limits = ", ".join(f"{limit.axis} {limit.text}" for limit in self.budget.limits)
        parts = [f"Under {limits}: {self._best_text}"]
        if self.unmeasured:
            axes = sorted({axis for found in self.unmeasured.values() for axis in found})
            numbers = ", ".join(str(n) for n in self.unmeasured)
            parts.append(f"Trials {numbers} may fit, but have no figure of {', '.join(axes)}: measure them anew.")
        return " ".join(parts)

    @property
    def _best_text(self) -> str:
        if self.best is None:
            out = sum(v.overall is Judgement.OUT for v in self.verdicts.values())
            return f"no recorded trial is shown to fit; {out} of {len(self.verdicts)} are certainly out."
        again = (
            "measured again" if self.verified else "by the search's figures alone: run it with this budget to confirm"
        )
        return f"trial {self.best.number} is the best recorded one, {again}."

    def to_json(self) -> dict[str, Any]:
        return {
            "budget": self.budget.to_json(),
            "objective": self.objective,
            "best": self.best.to_json() if self.best else None,
            "verified": self.verified,
            "verdicts": {str(n): v.to_json() for n, v in self.verdicts.items()},
            "unmeasured": {str(n): list(axes) for n, axes in self.unmeasured.items()},
            "text": self.text,
        }


def rejudge(result: StudyResult, budget: Budget, folder: Path | None = None) -> Rejudged:
    """Judge every trial that was measured; finalists by their second measurement where ``folder`` has it.

    What failed in that has no figures that count.
    """
    ranking = Ranking(result.objective, maximize=rises(result, result.objective))
    ran = [t for t in distinct(result) if t.state is not TrialState.FAILED and not t.failed_again]
    known = {t.number: _figures(result, t, folder) for t in ran}
    verdicts = {number: budget.judge(measured) for number, (measured, _) in known.items()}
    unmeasured = {
        number: gaps
        for number, (measured, _) in known.items()
        if verdicts[number].overall is not Judgement.OUT and (gaps := _gaps(budget, measured))
    }
    fitting = [
        replace(t, measured=known[t.number][0], verdict=verdicts[t.number])
        for t in distinct(result)
        if t.number in verdicts and verdicts[t.number].overall is Judgement.IN
    ]
    best = min(fitting, key=lambda t: (ranking.of(t).value, ranking.simplicity(t)), default=None)
    verified = best is not None and known[best.number][1]
    return Rejudged(budget, result.objective, verdicts, best, verified, unmeasured)


def _gaps(budget: Budget, measured: Mapping[str, Measurement]) -> tuple[str, ...]:
    return tuple(limit.axis for limit in budget.limits if limit.interval(measured.get(limit.axis)) is None)


def _figures(result: StudyResult, trial: TrialRecord, folder: Path | None) -> tuple[Mapping[str, Measurement], bool]:
    """A trial's figures, and whether they are of its second measurement."""
    chosen = result.chosen
    if trial.stage == "verify" and chosen is not None and chosen.number == trial.number:
        return chosen.measured, True
    if trial.stage == "verify" and folder is not None:
        path = samples_file(readings_in(folder), verified_name(trial.number))
        if path.exists():
            return Samples.load(path).measured, True
    return trial.measured, False


def read_budget(given: Budget | Mapping[str, Any] | str | Path, result: StudyResult) -> Budget:
    """A budget as a spec writes it: a mapping of limits, or a YAML file with ``budget:`` (and ``margin:``) in it.

    Raises:
        SpecError: there is no such file, it has no budget, or a limit is wrong.
    """
    if isinstance(given, Budget):
        return given
    where, margin = "the budget", 0.0
    if isinstance(given, (str, Path)):
        where = str(given)
        given = _load(Path(given))
        if "budget" in given:
            margin, given = _margin(given, where), given["budget"]
    if not isinstance(given, Mapping) or not given:
        raise SpecError(f"{where}: no limits.", "Write at least one, such as latency_p50_ms: 60% of baseline.")
    return Budget(tuple(_limit(str(name), raw, margin, where=where, result=result) for name, raw in given.items()))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise BadInput(f"{path} can't be read: {exc.strerror}.", "Name a YAML file with a budget in it.") from exc
    except yaml.YAMLError as exc:
        raise SpecError(f"{path} is not valid YAML: {exc}.") from exc
    return found if isinstance(found, Mapping) else {}


def _margin(given: Mapping[str, Any], where: str) -> float:
    try:
        return parse_fraction(given.get("margin", 0.0))
    except ValueError as exc:
        raise SpecError(f"{where}: margin: {exc}.") from exc


def _limit(name: str, raw: Any, margin: float, *, where: str, result: StudyResult) -> Limit:
    found = plugins.find_axis(name)
    if found is None:
        raise SpecError(f"{where}: unknown axis {name!r}.", nearest(name, plugins.axis_names()))
    axis = found[1]
    if axis.name == "quality":
        axis = replace(axis, higher_is_better=quality_rises(result))
    try:
        return Limit.parse(axis, raw, margin)
    except ValueError as exc:
        raise SpecError(f"{where}: {exc}.") from exc
