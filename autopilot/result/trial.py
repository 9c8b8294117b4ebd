"""TrialRecord and Candidate: what was tried, and what the result speaks about by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from autopilot.artifact import Artifact
from autopilot.budget import Verdict
from autopilot.errors import Failure
from autopilot.profile import Interval, Measurement, OperatorTable, StageShares
from autopilot.recipe import Deployment, Recipe, Variant
from autopilot.result.jsonable import (
    interval_from_json,
    interval_to_json,
    measured_from_json,
    measured_to_json,
    plain,
    verdict_from_json,
    verdict_to_json,
)
from autopilot.words import counted

# The reason of a finalist that held: what it is known by.
HELD_AGAIN = "measured again: every limit holds"
# How the reason of a finalist begins that failed when it was measured again.
FAILED_AGAIN = "failed when measured again"


class TrialState(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, repr=False)
class TrialRecord:
    """One trial: what was tried, how far it came and what was measured.

    ``stage`` is the last stage reached, ``reason`` one line on why it ended there, ``seconds`` wall
    time by stage, ``log`` the last lines of a failed child's stderr. ``measured`` and ``verdict`` are the search's;
    ``verified`` is the verdict of the second measurement, on held-back data, of those that had one.
    """

    id: str
    number: int
    state: TrialState
    failure: Failure | None
    reason: str
    stage: str
    variant: Variant
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    verdict: Verdict | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    artifact: Artifact | None = None
    warnings: tuple[str, ...] = ()
    log: str = ""
    verified: Verdict | None = None

    @property
    def last_verdict(self) -> Verdict | None:
        """The verdict that counts: the second measurement's where there was one."""
        return self.verified or self.verdict

    def __repr__(self) -> str:
        # All of it is some 7 kB: a cell of a notebook that ends in a trial would be pages long.
        judged = f", {self.verdict.overall.value}" if self.verdict else ""
        return f"<trial {self.number}: {_variant(self.variant)}; {self.state.value} at {self.stage}{judged}>"

    @property
    def was_finalist(self) -> bool:
        """Whether it was measured again, in fresh processes on held-back data."""
        return self.stage == "verify"

    @property
    def held_again(self) -> bool:
        """Whether every limit held when it was measured again."""
        return self.was_finalist and self.reason == HELD_AGAIN

    @property
    def failed_again(self) -> bool:
        """Whether it failed when it was measured again: what the search found of it counts no more."""
        return self.was_finalist and self.reason.startswith(FAILED_AGAIN) and not self.spoilt_again

    @property
    def spoilt_again(self) -> bool:
        """Whether the machine was too unsteady to measure it again, which says nothing against it."""
        return self.was_finalist and self.reason.startswith(f"{FAILED_AGAIN}: {Failure.UNSTABLE.value}:")

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "number": self.number,
            "state": self.state.value,
            "failure": self.failure.value if self.failure else None,
            "reason": self.reason,
            "stage": self.stage,
            **self.variant.to_json(),
            "measured": measured_to_json(self.measured),
            **verdict_to_json(self.verdict),
            "seconds": plain(self.seconds),
            "artifact": self.artifact.to_json() if self.artifact else None,
            "warnings": list(self.warnings),
            "log": self.log,
            "verified": verdict_to_json(self.verified) if self.verified else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrialRecord:
        return cls(
            id=str(value["id"]),
            number=int(value["number"]),
            state=TrialState(value["state"]),
            failure=Failure(value["failure"]) if value["failure"] else None,
            reason=str(value.get("reason", "")),
            stage=str(value["stage"]),
            variant=Variant.from_json(value),
            measured=measured_from_json(value["measured"]),
            verdict=verdict_from_json(value),
            seconds=dict(value["seconds"]),
            artifact=Artifact.from_json(value["artifact"]) if value.get("artifact") else None,
            warnings=tuple(value.get("warnings", ())),
            log=str(value.get("log", "")),
            verified=verdict_from_json(value["verified"]) if value.get("verified") else None,
        )


@dataclass(frozen=True, slots=True, repr=False)
class Candidate:
    """A variant the result speaks about by itself: the baseline, the winner, the nearest miss.

    ``artifact`` is the model file, relative to the run folder for the winner and the nearest miss;
    ``speedup`` is baseline / candidate of the objective, from interleaved readings (1 for the baseline).
    ``stages`` and ``operators`` say where its time goes; None where there are no hooks, where it wasn't taken.
    """

    id: str
    recipe: Recipe
    deployment: Deployment
    artifact: str
    sha256: str
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    verdict: Verdict | None = None
    speedup: Interval | None = None
    number: int | None = None
    stages: StageShares | None = None
    operators: OperatorTable | None = None

    def __repr__(self) -> str:
        judged = f"; {self.verdict.overall.value}" if self.verdict else ""
        return f"<candidate, trial {self.number}: {_variant(self.variant)}{judged}>"

    @property
    def variant(self) -> Variant:
        return Variant(self.recipe, self.deployment)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "number": self.number,
            **self.variant.to_json(),
            "artifact": self.artifact,
            "sha256": self.sha256,
            "measured": measured_to_json(self.measured),
            **verdict_to_json(self.verdict),
            "speedup": interval_to_json(self.speedup),
            "stages": plain(self.stages.to_json()) if self.stages else None,
            "operators": plain(self.operators.to_json()) if self.operators else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Candidate:
        variant = Variant.from_json(value)
        return cls(
            id=str(value["id"]),
            recipe=variant.recipe,
            deployment=variant.deployment,
            artifact=str(value["artifact"]),
            sha256=str(value["sha256"]),
            measured=measured_from_json(value["measured"]),
            verdict=verdict_from_json(value),
            speedup=interval_from_json(value.get("speedup")),
            number=value.get("number"),
            stages=StageShares.from_json(value["stages"]) if value.get("stages") else None,
            operators=OperatorTable.from_json(value["operators"]) if value.get("operators") else None,
        )


def _variant(variant: Variant) -> str:
    """Techniques and deployment, without parameters."""
    d = variant.deployment
    techniques = " > ".join(step.technique for step in variant.recipe.steps) or "as given"
    return f"{techniques} on {d.provider}, {counted(d.threads, 'thread')}, batch {d.batch}"
