"""Every figure and verdict of a finished run again, from the raw readings alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autopilot import plugins
from autopilot.budget import Budget, Verdict
from autopilot.errors import BadInput
from autopilot.profile import Interval, Measurement, Profile, QualityReading, ScoreKind
from autopilot.result import StudyResult, TrialRecord, TrialState
from autopilot.result.jsonable import measured_to_json, plain, verdict_to_json
from autopilot.scoring import recompute as recompute_quality
from autopilot.search.samples import FOLDER, WORK, Samples, beside_name, samples_file, verified_name
from autopilot.search.summary import Question, summarise

# The same readings give the same figures; other versions of numpy may add numbers up in another order.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Stored:
    """What a run said of one variant."""

    measured: Mapping[str, Measurement]
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of one variant: what was said then and what its readings say now.

    ``what`` is ``trial``, ``verified`` (a finalist's second measurement) or ``baseline`` (the baseline beside
    that). ``again`` is None where nothing can be computed; ``note`` then says why. ``deviation`` is the
    largest one of any figure, as a share of the largest of value and bounds, on ``axis``.
    """

    trial: int
    what: str
    stored: Stored
    again: Stored | None = None
    deviation: float = 0.0
    axis: str = ""
    note: str = ""
    size_bytes: int = 0

    @property
    def agrees(self) -> bool | None:
        """Whether verdict and figures are the same; None where nothing could be computed."""
        if self.again is None:
            return None
        return _limits(self.stored) == _limits(self.again) and self.deviation <= TOLERANCE

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "trial": self.trial,
            "what": self.what,
            "agrees": self.agrees,
            "stored": verdict_to_json(self.stored.verdict),
            "recomputed": verdict_to_json(self.again.verdict) if self.again else None,
            "deviation": plain(self.deviation) if self.again else None,
            "axis": self.axis,
            "note": self.note,
            "bytes": self.size_bytes,
        }
        return value | {"measured": measured_to_json(self.again.measured) if self.again else {}}


@dataclass(frozen=True, slots=True)
class Recomputation:
    """All rows of a run, in the order of trials."""

    rows: tuple[Row, ...]

    @property
    def agree(self) -> bool:
        """False where any recomputed row differs from what was stored."""
        return not any(row.agrees is False for row in self.rows)

    def of_trial(self, number: int) -> Recomputation:
        """The rows of one trial.

        Raises:
            BadInput: there is no such trial.
        """
        rows = tuple(row for row in self.rows if row.trial == number)
        if not rows:
            known = sorted({row.trial for row in self.rows})
            raise BadInput(f"there is no trial {number}.", f"This run has trials {known[0]} to {known[-1]}.")
        return Recomputation(rows)

    @property
    def sentence(self) -> str:
        """What it comes to, for people."""
        done = [row for row in self.rows if row.agrees is not None]
        without = len(self.rows) - len(done)
        rest = f" {without} without readings." if without else ""
        wrong = [f"trial {row.trial} ({row.what})" for row in done if not row.agrees]
        if not done:
            return f"Nothing could be recomputed.{rest}"
        if wrong:
            return f"{len(wrong)} of {len(done)} recomputed differ from what was stored: {', '.join(wrong)}.{rest}"
        return f"All {len(done)} recomputed verdicts agree with the stored ones, and so do their figures.{rest}"

    def to_json(self) -> dict[str, Any]:
        rows = [row.to_json() for row in self.rows]
        return {"schema": 1, "agree": self.agree, "tolerance": TOLERANCE, "text": self.sentence, "rows": rows}


def recompute_run(folder: Path) -> Recomputation:
    """Every trial of the run in ``folder``, the verification of its finalists, and the baseline beside the winner.

    Raises:
        BadInput: there is no finished run, or it kept no readings.
    """
    result = StudyResult.load(folder)
    work = folder / WORK
    if not (work / FOLDER).is_dir():
        raise BadInput(
            f"{folder} has no readings in {WORK}/{FOLDER}: they were removed, or the folder is a copy without them.",
            "Name the folder that the run wrote.",
        )
    reader = _Reader(work, result)
    return Recomputation(tuple(row for trial in result.trials for row in _rows(reader, result, trial)))


def recompute_file(path: Path) -> Recomputation:
    """The one measurement in a file that ``check --samples`` wrote.

    Raises:
        BadInput: it is no such file.
    """
    samples = Samples.load(path)
    if samples.budget is None:
        raise BadInput(f"{path} is a part of a run.", "Name the run's folder.")
    question = _Asked(samples.budget, samples.objective)
    row = Row(0, "check", Stored(samples.measured, samples.verdict), size_bytes=path.stat().st_size)
    beside = samples.baseline_profile
    baseline = None if beside is None else _figures(question, replace(samples, profile=beside), None)
    return Recomputation((_compared(row, samples, _figures(question, samples, baseline), question),))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Budget and objective of a check."""

    budget: Budget
    objective: str


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the samples of one run; the baseline's figures are computed once."""

    work: Path
    question: Question
    _baselines: dict[str, Mapping[str, Measurement]] = field(default_factory=dict)

    def row(self, row: Row, name: str) -> Row:
        """``row`` with what the readings called ``name`` say."""
        path = samples_file(self.work, name)
        if not path.exists():
            return replace(row, note="no readings were kept")
        row = replace(row, size_bytes=path.stat().st_size)
        try:
            samples = Samples.load(path)
            if row.stored.verdict is None:
                row = replace(row, stored=Stored(samples.measured, samples.verdict))
            baseline = self._baseline(samples.baseline) if samples.baseline else None
            return _compared(row, samples, _figures(self.question, samples, baseline), self.question)
        except BadInput as exc:
            return replace(row, note=exc.message)

    def _baseline(self, name: str) -> Mapping[str, Measurement]:
        if name not in self._baselines:
            samples = Samples.load(samples_file(self.work, name))
            self._baselines[name] = _figures(self.question, samples, None)
        return self._baselines[name]


def _rows(reader: _Reader, result: StudyResult, trial: TrialRecord) -> Iterator[Row]:
    stored = Stored(trial.measured, trial.verdict)
    row = Row(trial.number, "trial", stored)
    if trial.state is TrialState.DUPLICATE:
        yield replace(row, note=trial.reason)
        return
    if trial.state is TrialState.FAILED:
        yield replace(row, note=f"failed ({trial.failure.value if trial.failure else 'no class'}): nothing to judge")
        return
    yield reader.row(row, str(trial.number))
    if trial.stage != "verify":
        return
    chosen = result.chosen
    is_chosen = chosen is not None and chosen.number == trial.number
    # What was said of finalists that aren't the result's subject stands in their own file alone.
    said = Stored(chosen.measured, chosen.verdict) if chosen is not None and is_chosen else Stored({}, None)
    yield reader.row(replace(row, what="verified", stored=said), verified_name(trial.number))
    if is_chosen:
        beside = Stored(result.baseline.measured, result.baseline.verdict)
        yield reader.row(replace(row, what="baseline", stored=beside), beside_name(trial.number))


def _figures(
    question: Question, samples: Samples, baseline: Mapping[str, Measurement] | None
) -> dict[str, Measurement]:
    """All measurements that follow from the readings, through the same meters as when they were taken."""
    return summarise(question, _scored_again(samples.profile), samples.stage, baseline)


def _scored_again(profile: Profile) -> Profile:
    reading = profile.quality
    if reading is None:
        return profile
    return replace(profile, quality=recompute_quality(reading, plugins.metrics().get(reading.metric)))


def _compared(row: Row, samples: Samples, measured: Mapping[str, Measurement], question: Question) -> Row:
    again = Stored(measured, question.budget.judge(measured))
    found = {axis: deviation(m, measured.get(axis)) for axis, m in row.stored.measured.items()}
    axis = max(found, key=lambda name: found[name], default="")
    largest = found.get(axis, 0.0)
    note = _quality_note(samples.profile.quality)
    return replace(row, again=again, deviation=largest, axis=axis if largest else "", note=note)


def _quality_note(reading: QualityReading | None) -> str:
    """What of the quality could not be computed from scratch."""
    if reading is None:
        return ""
    if reading.raw is None:
        return "quality as it was read: no scores were kept"
    if reading.raw.kind is ScoreKind.RESAMPLED:
        return f"quality: intervals from {len(reading.raw.candidate)} kept resamples, scores as they were read"
    return ""


def deviation(stored: Measurement, again: Measurement | None) -> float:
    """The largest difference of value and bounds, as a share of the largest of them; infinite where one is missing.

    >>> deviation(Measurement("x", 10.0, 9.0, 11.0), Measurement("x", 10.0, 9.0, 11.11))
    0.01
    """
    if again is None:
        return math.inf
    pairs = [((stored.value, stored.low, stored.high), (again.value, again.low, again.high))]
    pairs.append((_sides(stored.ratio), _sides(again.ratio)))
    return max(_difference(a, b) for a, b in pairs)


def _sides(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (interval.value, interval.low, interval.high) if interval is not None else (None, None, None)


def _difference(a: tuple[float | None, ...], b: tuple[float | None, ...]) -> float:
    differences = [0.0]
    finite = [abs(x) for x in (*a, *b) if x is not None and math.isfinite(x)]
    scale = max(finite, default=0.0) or 1.0
    for x, y in zip(a, b, strict=True):
        if x == y or (x is not None and y is not None and math.isnan(x) and math.isnan(y)):
            continue
        both = x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
        differences.append(abs(x - y) / scale if both and x is not None and y is not None else math.inf)
    return max(differences)


def _limits(said: Stored) -> tuple[Any, ...] | None:
    return None if said.verdict is None else (said.verdict.overall, dict(said.verdict.per_limit))
