"""Raw readings on disk, so that a verdict can be computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autopilot.budget import Budget, Verdict
from autopilot.contracts import Stage
from autopilot.errors import BadInput
from autopilot.profile import Measurement, Profile
from autopilot.profile.storage import load_record, save_record
from autopilot.result import TrialRecord
from autopilot.search.outcome import Outcome

if TYPE_CHECKING:
    from autopilot.search.evaluator import Evaluator

# Where a run keeps everything that is no result, inside of its folder.
WORK = ".autopilot"
FOLDER = "samples"
# In there: the readings of the folder's result, while a run that started anew takes its own.
ASIDE = "result"
_SECOND = ("verify", "baseline")
_WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Samples:
    """Everything read about one variant in one trial (or check), and what was made of it then.

    ``stage`` is the last one that was run. ``baseline`` names the file, beside this one, with the readings
    of the baseline that ratios are taken against; empty where these are the baseline's own. What ``check``
    writes has no files beside it: it carries ``baseline_profile``, ``budget`` and the
    ``objective`` (several: and ``more_objectives``) itself.
    """

    profile: Profile
    stage: Stage
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    verdict: Verdict | None = None
    baseline: str = ""
    baseline_profile: Profile | None = None
    budget: Budget | None = None
    objective: str = ""
    more_objectives: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Samples:
        """Read what ``save_samples`` or ``check --samples`` wrote.

        Raises:
            BadInput: there is no such file, or it is none of these.
        """
        return load_record(path, cls)


def verified_name(number: int) -> str:
    """The name under which the second measurement of trial ``number`` is kept."""
    return f"{number}-{_SECOND[0]}"


def beside_name(number: int) -> str:
    """The name of the baseline's readings beside trial ``number``'s second measurement."""
    return f"{number}-{_SECOND[1]}"


def waiting_name(name: str) -> str:
    """The name under which readings of a second measurement wait for the result that rests on them."""
    return f"{name}-{_WAITING}"


def unsettled_name(variant: str) -> str:
    """The name under which readings of the variant with this id wait for their trial's number."""
    return f"trial-{variant}"


def readings_in(folder: Path) -> Path:
    """Where the readings lie that belong to the result in the run folder ``folder``."""
    aside = folder / WORK / ASIDE
    return aside if aside.exists() else folder / WORK


def samples_file(work: Path, name: str) -> Path:
    return work / FOLDER / f"{name}.npz"


def save_samples(work: Path, name: str, outcome: Outcome, verdict: Verdict) -> None:
    """Write all readings of ``outcome`` to ``work/samples/NAME.npz``."""
    if outcome.profile is None:
        return
    path = samples_file(work, name)
    path.parent.mkdir(exist_ok=True)
    save_record(
        path, Samples(outcome.profile, outcome.stage, dict(outcome.measured), verdict, outcome.baseline_samples)
    )


def save_check(path: Path, evaluator: Evaluator, outcome: Outcome, verdict: Verdict) -> None:
    """Write all readings of a check to ``path``, with the baseline's and the question: it stands alone."""
    problem = evaluator.setup.problem
    kept = Samples(
        outcome.profile or Profile(outcome.variant.id),
        outcome.stage,
        dict(outcome.measured),
        verdict,
        baseline_profile=evaluator.baseline.profile,
        budget=problem.budget,
        objective=problem.objective,
        more_objectives=problem.more_objectives,
    )
    save_record(path, kept)


def keep_samples(work: Path, record: TrialRecord) -> None:
    """Give the readings that wait under the variant's id the number of their ``record``."""
    waiting = samples_file(work, unsettled_name(record.id))
    if waiting.exists():
        waiting.replace(samples_file(work, str(record.number)))


def forget_samples(work: Path, variant: str) -> None:
    """Remove the readings that wait under the variant's id: their trial has no record, and another run's has."""
    samples_file(work, unsettled_name(variant)).unlink(missing_ok=True)


def settle_samples(work: Path, records: Sequence[TrialRecord]) -> None:
    """What a kill left between a trial's readings, its record and its number: numbered, or removed without a record.

    Second readings that wait for a result are removed too: they are taken again.
    """
    for record in records:
        keep_samples(work, record)
    for name in (unsettled_name("*"), waiting_name("*")):
        for path in (work / FOLDER).glob(f"{name}.npz"):
            path.unlink(missing_ok=True)


def place_second(work: Path) -> None:
    """Put the second readings that wait in their places, once their result is written; an earlier result's go."""
    folder = work / FOLDER
    placed = set()
    for path in sorted(folder.glob(f"*-{_WAITING}.npz")):
        placed.add(path.replace(samples_file(work, path.stem.removesuffix(f"-{_WAITING}"))))
    for kind in _SECOND:
        for path in folder.glob(f"*-{kind}.npz"):
            if path not in placed:
                path.unlink(missing_ok=True)


def settled_samples(work: Path, first: int) -> list[Path]:
    """The readings that a result of the trials before ``first`` rests on: none that wait, none of later trials."""
    found = []
    for path in sorted((work / FOLDER).glob("*.npz")):
        number, _, rest = path.stem.partition("-")
        is_earlier = number == "baseline" or (number.isdigit() and int(number) < first)
        if is_earlier and not rest.endswith(_WAITING):
            found.append(path)
    return found


def baseline_again_name(work: Path, trials: int) -> str:
    """A free name for the baseline's readings of a run that goes on after ``trials``: others rest on those there."""
    name, n = f"baseline-{trials}", 1
    while samples_file(work, name).exists():
        n += 1
        name = f"baseline-{trials}-{n}"
    return name


def drop_samples(work: Path, first: int) -> None:
    """Remove the readings of trial ``first`` and later: a kill left them without a record."""
    for path in (work / FOLDER).glob("*.npz"):
        number = path.stem.partition("-")[0]
        if number.isdigit() and int(number) >= first:
            path.unlink(missing_ok=True)


def write_requests(path: Path, profile: Profile) -> None:
    """Write ``profile``'s timed requests as CSV, a line each: who answered, block, process, latency.

    Raises:
        BadInput: no request was timed, or the file can't be written.
    """
    readings = {"candidate": profile.latency, "baseline": profile.baseline_latency}
    lines = ["who,block,process,latency_ms"]
    for who, reading in readings.items():
        if reading is None:
            continue
        process = reading.block_process if reading.block_process is not None else np.zeros_like(reading.block)
        for block, latency_s in zip(reading.block.tolist(), reading.latency_s.tolist(), strict=True):
            lines.append(f"{who},{block},{process[block]},{latency_s * 1e3:.6f}")
    if len(lines) == 1:
        raise BadInput("no request of this trial was timed: it ended before that.", "Choose another trial.")
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as exc:
        raise BadInput(f"{path} can't be written: {exc.strerror}.", "Name a file in a folder that exists.") from exc
