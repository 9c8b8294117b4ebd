"""The book of a study: every trial's record, told to Optuna and MLflow, raw samples kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from optuna.trial import Trial

from autopilot.artifact import Artifact
from autopilot.budget import Judgement, Verdict
from autopilot.contracts import Stage
from autopilot.errors import Failure, VariantFailed
from autopilot.profile import Measurement
from autopilot.recipe import Recipe, Variant
from autopilot.result import TrialRecord, TrialState
from autopilot.search.finalists import line_up
from autopilot.search.outcome import Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.sampler import Sampler
from autopilot.search.samples import drop_samples, save_samples

# A variant is given up before its costly pass when this many in budget beat it by more than this share.
ENOUGH_BETTER = 3
CLEARLY = 0.05

# So many trials in a row that the machine spoilt, each measured twice, end the search: more would go the same way.
UNSTABLE_IN_A_ROW = 3

Log = Callable[[TrialRecord], None]


class Book:
    """Records of one study in the order of trials; finds what was measured before."""

    def __init__(self, sampler: Sampler, ranking: Ranking, work: Path) -> None:
        self.records: list[TrialRecord] = []
        self.log: Log = lambda record: None
        self._sampler = sampler
        self._ranking = ranking
        self._work = work
        self._by_variant: dict[str, TrialRecord] = {}
        self._by_artifact: dict[tuple[str, str], TrialRecord] = {}
        self._by_recipe: dict[str, TrialRecord] = {}  # out by what was built alone (its size)
        self._dead: dict[str, str] = {}

    def recover(self) -> None:
        """Take over the finished trials of an interrupted run."""
        for raw in self._sampler.recover():
            self._remember(TrialRecord.from_json(raw))
        drop_samples(self._work, len(self.records))

    def dead_end(self, recipe: Recipe) -> str | None:
        """Why ``recipe`` can't be built: some trial found that its first steps don't apply to this model."""
        for n in range(1, len(recipe.steps) + 1):
            reason = self._dead.get(Recipe(recipe.steps[:n]).digest)
            if reason is not None:
                return reason
        return None

    def same_variant(self, variant: Variant) -> TrialRecord | None:
        """The trial that measured ``variant`` already, or that ended before its deployment mattered."""
        return self._by_variant.get(variant.id) or self._by_recipe.get(variant.recipe.digest)

    def same_artifact(self, artifact: Artifact, variant: Variant) -> TrialRecord | None:
        """The trial that measured the same bytes in the same deployment under another recipe."""
        return self._by_artifact.get((artifact.sha256, deployment_text(variant)))

    def hopeless(self, measured: Mapping[str, Measurement]) -> str | None:
        """Why a variant can't win whatever its quality: several in budget are clearly better already.

        Several, since the best may fail its verification.
        """
        figures = self._ranking.all_seen(measured)
        if not all(math.isfinite(x.value) for x in figures):
            return None  # an objective that isn't known yet may be its strength
        floors = [x.low - CLEARLY * abs(x.low) for x in figures]
        better = [
            r
            for r in line_up(self.records, self._ranking)
            if r.verdict is not None
            and r.verdict.overall is Judgement.IN
            and all(x.high < floor for x, floor in zip(self._ranking.all_seen(r.measured), floors, strict=True))
        ]
        if len(better) < ENOUGH_BETTER:
            return None
        axes = " and ".join(self._ranking.axes)
        return f"{len(better)} variants in budget are clearly better on {axes}, so it was not scored"

    def measured(self, trial: Trial, outcome: Outcome, verdict: Verdict) -> None:
        """A trial that was measured, to the end or to its first certain violation."""
        record = TrialRecord(
            id=outcome.variant.id,
            number=len(self.records),
            state=TrialState.PRUNED if outcome.cut_short else TrialState.COMPLETE,
            failure=None,
            reason=outcome.cut_short,
            stage=outcome.stage.value,
            variant=outcome.variant,
            measured=dict(outcome.measured),
            verdict=verdict,
            seconds=dict(outcome.seconds),
            artifact=outcome.artifact,
            warnings=tuple(outcome.warnings),
        )
        save_samples(self._work, str(record.number), outcome, verdict)
        self._tell(trial, record)

    def failed(
        self, trial: Trial, variant: Variant, exc: VariantFailed, seconds: dict[str, float], *, was_built: bool
    ) -> None:
        """A variant that can't be built, can't run, or isn't what it claims to be."""
        record = TrialRecord(
            id=variant.id,
            number=len(self.records),
            state=TrialState.FAILED,
            failure=exc.failure,
            reason=str(exc),
            stage="profile" if was_built else Stage.BUILD.value,
            variant=variant,
            seconds=seconds,
            log=exc.log,
        )
        self._tell(trial, record)

    @property
    def is_unstable(self) -> bool:
        """Whether the machine spoilt the last few trials, one after the other."""
        last = self.records[-UNSTABLE_IN_A_ROW:]
        return len(last) == UNSTABLE_IN_A_ROW and all(r.failure is Failure.UNSTABLE for r in last)

    def skipped(self, trial: Trial, known: TrialRecord | None) -> None:
        """Tell Optuna of a variant for which nothing is run: it repeats ``known``, or can't be built."""
        if known is None:
            self._sampler.tell_failed(trial, None)
        else:
            self._tell_optuna(trial, None, known)

    def duplicate(self, trial: Trial, variant: Variant, known: TrialRecord) -> None:
        """A recipe that built the same bytes as another: Optuna is told the same again, nothing is run."""
        reason = f"the same as trial {known.number}"
        record = replace(
            known, id=variant.id, number=len(self.records), state=TrialState.DUPLICATE, variant=variant, reason=reason
        )
        self._tell(trial, replace(record, seconds={}, log="", warnings=()), known)

    def _tell(self, trial: Trial, record: TrialRecord, like: TrialRecord | None = None) -> None:
        """Store the record, tell Optuna the state it (or the trial it repeats) ended in, log it."""
        self._tell_optuna(trial, record, like or record)
        self._remember(record)
        self.log(record)

    def _tell_optuna(self, trial: Trial, record: TrialRecord | None, shown: TrialRecord) -> None:
        stored = record.to_json() if record is not None else None
        violations = shown.verdict.violations if shown.verdict else {}
        if shown.state is TrialState.COMPLETE:
            self._sampler.tell_measured(trial, stored, value=self._ranking.told(shown), violations=violations)
        elif shown.state is TrialState.PRUNED:
            self._sampler.tell_pruned(trial, stored, violations)
        elif shown.failure is Failure.UNSTABLE:
            self._sampler.tell_unstable(trial, stored)
        else:
            self._sampler.tell_failed(trial, stored)

    def _remember(self, record: TrialRecord) -> None:
        self.records.append(record)
        self._by_variant.setdefault(record.id, record)
        if record.state is TrialState.DUPLICATE:
            return
        if record.state is TrialState.PRUNED and record.stage == Stage.BUILD:
            self._by_recipe.setdefault(record.variant.recipe.digest, record)
        if record.failure is Failure.UNSUPPORTED and record.stage == Stage.BUILD:
            # What a provider doesn't support says nothing about the recipe on another one.
            self._dead[record.variant.recipe.digest] = record.reason
        if record.artifact is not None:
            self._by_artifact.setdefault((record.artifact.sha256, deployment_text(record.variant)), record)


def deployment_text(variant: Variant) -> str:
    """``cpu threads=1 batch=1 arena=True …``."""
    d = variant.deployment
    served = d.serving_json().items()
    return " ".join(
        [d.provider, f"threads={d.threads}", f"batch={d.batch}", *(f"{k}={v}" for k, v in (*served, *d.options))]
    )
