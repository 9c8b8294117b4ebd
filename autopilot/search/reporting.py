"""The report of a run: its result, with the raw latencies that lie beside it."""

from __future__ import annotations

from pathlib import Path

from autopilot.errors import BadInput
from autopilot.report import FILE, Content, Readings, write_report
from autopilot.result import StudyResult
from autopilot.search.samples import Samples, readings_in, samples_file, verified_name


def report_run(result: StudyResult, folder: Path | None, path: Path) -> Path:
    """Write the page of ``result`` to ``path``; the readings come from ``folder``, where there is one.

    Raises:
        BadInput: the file can't be written.
    """
    shown = "" if folder is None else str(folder)
    return write_report(Content(result, readings_of(result, folder), shown), path)


def report_into(result: StudyResult, folder: Path) -> Path:
    """Write ``folder``'s own report; an older one doesn't outlive it.

    Raises:
        BadInput: the file can't be written.
    """
    path = folder / FILE
    path.unlink(missing_ok=True)
    return report_run(result, folder, path)


def try_report(result: StudyResult, folder: Path) -> str | None:
    """Write ``folder``'s own report; None when it is there, else what went wrong.

    The page is drawn from a result that is on disk already: whatever fails here, a bug included, must not cost
    the result, its exit code or its place in MLflow.
    """
    try:
        report_into(result, folder)
    except Exception as exc:  # see above: this is the one place where a page's trouble ends
        return f"no report was written: {type(exc).__name__}: {exc}"
    return None


def seen_from(folder: Path, file: Path) -> str:
    """How ``file`` is named in ``folder``: relative to it where it lies in it; empty where there is no such file.

    >>> seen_from(Path("/a"), Path("/a/no/such.yaml"))
    ''
    """
    if not file.is_file():  # a problem that was given as a mapping
        return ""
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def readings_of(result: StudyResult, folder: Path | None) -> Readings:
    """Latencies of the chosen variant and of the baseline beside it; without them, why there are none."""
    chosen = result.chosen
    if folder is None:
        return Readings(note="raw readings lie in the run's folder, and this result was read from elsewhere")
    if chosen is None or chosen.number is None:
        return Readings(note="no variant was measured to the end")
    work = readings_in(folder)
    again = samples_file(work, verified_name(chosen.number))
    # A file alone is no proof: it may be of an earlier result, whose study went on.
    is_verified = any(t.number == chosen.number and t.stage == "verify" for t in result.trials) and again.exists()
    try:
        samples = Samples.load(again if is_verified else samples_file(work, str(chosen.number)))
    except BadInput:
        return Readings(note="the run's folder has no raw readings of it")
    return Readings.of(samples.profile, verified=is_verified)
