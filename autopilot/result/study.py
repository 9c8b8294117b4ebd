"""StudyResult: everything result.json says, as one frozen record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopilot.budget import Budget
from autopilot.errors import BadInput
from autopilot.needs import NotTried
from autopilot.result.baseline import BaselineChoice
from autopilot.result.ending import is_out_of_time
from autopilot.result.findings import Binding, Comparison, Fallback, FrontMember, Relaxation
from autopilot.result.jsonable import plain
from autopilot.result.stages import StageCost
from autopilot.result.trial import Candidate, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
# Of these more is better, and a ratio above 1 is a gain.
RATES = ("throughput_rps", "max_rate_rps")


def speed_axis(objectives: Sequence[str]) -> str:
    """The axis that a speedup is of: the first objective that is a time or a rate, else the median latency.

    >>> speed_axis(["size_mb", "throughput_rps"]), speed_axis(["size_mb"])
    ('throughput_rps', 'latency_p50_ms')
    """
    return next((axis for axis in objectives if axis.startswith("latency_") or axis in RATES), "latency_p50_ms")


class Status(StrEnum):
    """How a study ended."""

    IN_BUDGET = "in_budget"
    NO_FIT = "no_fit"
    UNDECIDED = "undecided"

    @property
    def exit_code(self) -> int:
        """The command's exit code: 0, 3 or 4."""
        return {Status.IN_BUDGET: 0, Status.NO_FIT: 3, Status.UNDECIDED: 4}[self]


@dataclass(frozen=True, slots=True)
class MlflowRef:
    """Where MLflow has the study; ``model`` and ``version`` are None where nothing was registered.

    ``fallbacks`` are the versions that have the aliases ``fallback-1``, ``fallback-2``, … in that order.
    ``champion``: whether the version is champion; ``ruling`` says why, or why not.
    """

    tracking_uri: str
    experiment: str
    run_id: str
    model: str | None = None
    version: int | None = None
    fallbacks: tuple[int, ...] = ()
    champion: bool = False
    ruling: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "tracking_uri": self.tracking_uri,
            "experiment": self.experiment,
            "run_id": self.run_id,
            "model": self.model,
            "version": self.version,
            "fallbacks": list(self.fallbacks),
            "champion": self.champion,
            "ruling": self.ruling or None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MlflowRef:
        version = value.get("version")
        return cls(
            str(value["tracking_uri"]),
            str(value["experiment"]),
            str(value["run_id"]),
            value.get("model"),
            None if version is None else int(version),
            tuple(int(v) for v in value.get("fallbacks", ())),
            bool(value.get("champion", False)),
            str(value.get("ruling") or ""),
        )


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Everything of result.json (schema 1).

    ``best`` is there only when the budget is met, ``nearest`` only when it is not: the candidate
    that comes closest. ``pareto`` holds trial ids; with several objectives (``more_objectives`` are those after
    the first) ``front`` has the figures of the same variants. ``fallbacks`` are ordered, each faster than the
    one before. ``stages``: what each stage of the trials cost; ``ended``: why the search did. ``relaxations``
    are there only where nothing is known to fit, the smallest first. ``baseline_choice``:
    what the baseline is, and why. ``spec``: its file as seen from where the run was started; empty where there
    was none, or an older version wrote the result.
    """

    status: Status
    name: str
    objective: str
    baseline: Candidate
    best: Candidate | None
    nearest: Candidate | None
    pareto: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    explanation: str
    budget: Budget
    environment: Mapping[str, Any]
    elapsed_s: float
    mlflow: MlflowRef | None = None
    warnings: tuple[str, ...] = ()
    budget_version: int | None = None
    rationale: str | None = None
    more_objectives: tuple[str, ...] = ()
    front: tuple[FrontMember, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    binding: tuple[Binding, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    not_tried: tuple[NotTried, ...] = ()
    stages: tuple[StageCost, ...] = ()
    ended: str = ""
    baseline_choice: BaselineChoice = field(default_factory=BaselineChoice)
    spec: str = ""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Every axis that was to be made as good as possible."""
        return (self.objective, *self.more_objectives)

    @property
    def exit_code(self) -> int:
        """0 in budget, 3 nothing fits, 4 undecided."""
        return self.status.exit_code

    @property
    def is_too_short(self) -> bool:
        """Whether the time was up before any variant but the baseline was measured."""
        return self.status is Status.UNDECIDED and is_out_of_time(self.ended, len(self.trials))

    @property
    def chosen(self) -> Candidate | None:
        """The winner, or the nearest miss where there is none."""
        return self.best or self.nearest

    @property
    def registered_name(self) -> str:
        """The study's name as MLflow's model registry takes it: no slash, no colon, no dots alone."""
        name = self.name.replace("/", "-").replace(":", "-").strip()
        return name if name.strip(".") else f"model{name}"

    def trials_dataframe(self) -> pd.DataFrame:
        """One row a trial, the columns of trials.csv."""
        import pandas as pd

        from autopilot.result.rows import trial_rows

        columns, rows = trial_rows(self)
        return pd.DataFrame.from_records(rows, columns=columns)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "status": self.status.value,
            "name": self.name,
            "spec": self.spec or None,
            "objective": list(self.objectives) if self.more_objectives else self.objective,
            "baseline": self.baseline.to_json(),
            "baseline_choice": self.baseline_choice.to_json(),
            "best": self.best.to_json() if self.best else None,
            "nearest": self.nearest.to_json() if self.nearest else None,
            "pareto": list(self.pareto),
            "front": [m.to_json() for m in self.front],
            "fallbacks": [f.to_json() for f in self.fallbacks],
            "comparisons": [c.to_json() for c in self.comparisons],
            "binding": [b.to_json() for b in self.binding],
            "relaxations": [r.to_json() for r in self.relaxations],
            "stages": [s.to_json() for s in self.stages],
            "ended": self.ended or None,
            "not_tried": [n.to_json() for n in self.not_tried],
            "trials": [t.to_json() for t in self.trials],
            "explanation": self.explanation,
            "budget": self.budget.to_json(),
            "budget_version": self.budget_version,
            "rationale": self.rationale,
            "environment": plain(self.environment),
            "warnings": list(self.warnings),
            "elapsed_s": self.elapsed_s,
            "mlflow": self.mlflow.to_json() if self.mlflow else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StudyResult:
        """Rebuild a result.

        Raises:
            BadInput: the schema is not the one this version reads.
        """
        if value.get("schema") != SCHEMA:
            raise BadInput(
                f"this result has schema {value.get('schema')!r}; this version of autopilot reads schema {SCHEMA}.",
                "Read it with the version that wrote it, or run the study again.",
            )
        objectives = value["objective"] if isinstance(value["objective"], list) else [value["objective"]]
        return cls(
            status=Status(value["status"]),
            name=str(value["name"]),
            objective=str(objectives[0]),
            more_objectives=tuple(str(axis) for axis in objectives[1:]),
            baseline=Candidate.from_json(value["baseline"]),
            best=Candidate.from_json(value["best"]) if value.get("best") else None,
            nearest=Candidate.from_json(value["nearest"]) if value.get("nearest") else None,
            pareto=tuple(value["pareto"]),
            trials=tuple(TrialRecord.from_json(t) for t in value["trials"]),
            explanation=str(value["explanation"]),
            budget=Budget.from_json(value["budget"]),
            environment=dict(value["environment"]),
            elapsed_s=float(value["elapsed_s"]),
            mlflow=MlflowRef.from_json(value["mlflow"]) if value.get("mlflow") else None,
            warnings=tuple(value.get("warnings", ())),
            budget_version=value.get("budget_version"),
            rationale=value.get("rationale"),
            front=tuple(FrontMember.from_json(m) for m in value.get("front", ())),
            fallbacks=tuple(Fallback.from_json(f) for f in value.get("fallbacks", ())),
            comparisons=tuple(Comparison.from_json(c) for c in value.get("comparisons", ())),
            binding=tuple(Binding.from_json(b) for b in value.get("binding", ())),
            relaxations=tuple(Relaxation.from_json(r) for r in value.get("relaxations", ())),
            not_tried=tuple(NotTried.from_json(n) for n in value.get("not_tried", ())),
            stages=tuple(StageCost.from_json(v) for v in value.get("stages", ())),
            ended=str(value.get("ended") or ""),
            baseline_choice=BaselineChoice.from_json(value.get("baseline_choice")),
            spec=str(value.get("spec") or ""),
        )

    def text(self) -> str:
        """The text of result.json."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def load(cls, path: Path | str) -> StudyResult:
        """Read ``result.json``, or the one in a run folder.

        Raises:
            BadInput: there is none, or it is damaged.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "result.json"
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except OSError as exc:
            raise BadInput(
                f"{file} can't be read: {exc.strerror}.",
                "Name the folder of a finished run; an interrupted one has no result yet.",
            ) from exc
        except ValueError as exc:
            raise BadInput(f"{file} is not valid JSON: {exc}.", "Run the study again; it resumes by itself.") from exc
        try:
            return cls.from_json(value)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            what = f"{type(exc).__name__}: {exc}"
            raise BadInput(f"{file} is not a result of autopilot ({what}).", "Name a run's folder.") from exc
