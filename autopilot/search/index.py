"""What a study has measured, found by what it was: the same variant, the same bytes, steps that can't be built."""

from __future__ import annotations

from autopilot.artifact import Artifact
from autopilot.contracts import Stage
from autopilot.errors import Failure
from autopilot.recipe import Recipe, Variant
from autopilot.result import TrialRecord, TrialState
from autopilot.search.dead_ends import DeadEnds


class Index:
    """The records of one study by what a further trial might repeat."""

    def __init__(self) -> None:
        self._by_variant: dict[str, TrialRecord] = {}
        self._by_artifact: dict[tuple[str, str], TrialRecord] = {}
        self._by_recipe: dict[str, TrialRecord] = {}  # out by what was built alone (its size)
        self._dead = DeadEnds()

    def add(self, record: TrialRecord) -> None:
        """Take in a finished trial; of equal ones the first is found."""
        self._by_variant.setdefault(record.id, record)
        if record.state is TrialState.DUPLICATE:
            return
        if record.state is TrialState.PRUNED and record.stage == Stage.BUILD:
            self._by_recipe.setdefault(record.variant.recipe.digest, record)
        if record.failure is Failure.UNSUPPORTED and record.stage == Stage.BUILD:
            # What a provider doesn't support says nothing about the recipe on another one.
            self._dead.learn(record)
        if record.artifact is not None:
            self._by_artifact.setdefault((record.artifact.sha256, deployment_text(record.variant)), record)

    def dead_end(self, recipe: Recipe) -> str | None:
        """Why ``recipe`` can't be built: some trial found that its first steps don't apply to this model."""
        return self._dead.reason(recipe)

    def same_variant(self, variant: Variant) -> TrialRecord | None:
        """The trial that measured ``variant`` already, or that ended before its deployment mattered."""
        return self._by_variant.get(variant.id) or self._by_recipe.get(variant.recipe.digest)

    def same_artifact(self, artifact: Artifact, variant: Variant) -> TrialRecord | None:
        """The trial that measured the same bytes in the same deployment under another recipe."""
        return self._by_artifact.get((artifact.sha256, deployment_text(variant)))

    def original(self, record: TrialRecord) -> TrialRecord:
        """The trial that ``record`` repeats; itself where it repeats none."""
        if record.state is not TrialState.DUPLICATE or record.artifact is None:
            return record
        return self.same_artifact(record.artifact, record.variant) or record


def deployment_text(variant: Variant) -> str:
    """``cpu threads=1 batch=1 arena=True …``."""
    d = variant.deployment
    served = d.serving_json().items()
    return " ".join(
        [d.provider, f"threads={d.threads}", f"batch={d.batch}", *(f"{k}={v}" for k, v in (*served, *d.options))]
    )
