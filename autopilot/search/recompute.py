"""Every figure and verdict of a finished run again, from the raw readings alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from autopilot import plugins
from autopilot.budget import Budget
from autopilot.errors import BadInput
from autopilot.profile import Measurement, Profile, QualityReading, ScoreKind
from autopilot.result import StudyResult, TrialRecord, TrialState
from autopilot.scoring import recompute as recompute_quality
from autopilot.search.recomputed import Recomputation, Row, Stored, deviation
from autopilot.search.samples import FOLDER, WORK, Samples, beside_name, readings_in, samples_file, verified_name
from autopilot.search.summary import Question, summarise


def recompute_run(folder: Path) -> Recomputation:
    """Every trial of the run in ``folder``, the verification of its finalists, and the baseline beside the winner.

    Raises:
        BadInput: there is no finished run, or it kept no readings.
    """
    result = StudyResult.load(folder)
    work = readings_in(folder)
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
    question = _Asked(samples.budget, (samples.objective, *samples.more_objectives))
    row = Row(0, "check", Stored(samples.measured, samples.verdict), size_bytes=path.stat().st_size)
    beside = samples.baseline_profile
    baseline = None if beside is None else _figures(question, replace(samples, profile=beside), None)
    return Recomputation((_compared(row, samples, _figures(question, samples, baseline), question),))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Budget and objectives of a check."""

    budget: Budget
    objectives: tuple[str, ...]


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
    rungs = {f.candidate.number: f.candidate for f in result.fallbacks if f.verified}
    spoken = chosen if is_chosen else rungs.get(trial.number)
    said = Stored(spoken.measured, spoken.verdict) if spoken is not None else Stored({}, None)
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
