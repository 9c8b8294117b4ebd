"""Content: what every section of the report reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from autopilot.report.readings import Readings
from autopilot.report.words import varied_parameters
from autopilot.result import Candidate, StudyResult


@dataclass(frozen=True, slots=True)
class Content:
    """A finished result and the raw latencies beside it; ``folder`` is the run's as a user would name it."""

    result: StudyResult
    readings: Readings = field(default_factory=Readings)
    folder: str = ""

    @property
    def chosen(self) -> Candidate | None:
        """The winner, or the nearest miss."""
        return self.result.chosen

    @property
    def chosen_name(self) -> str:
        return "winner" if self.result.best is not None else "nearest miss"

    @property
    def is_baseline(self) -> bool:
        """Whether the chosen variant is the baseline: mostly the model as given, in its own deployment."""
        return self.chosen is not None and self.chosen.id == self.result.baseline.id

    @property
    def varied(self) -> dict[str, frozenset[str]]:
        """By technique, the parameters that differ between trials."""
        return varied_parameters(t.variant.recipe for t in self.result.trials)
