"""The book of a study: every trial's record, kept in the ledger, told to the sampler and MLflow; raw samples kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from optuna.trial import Trial

from autopilot.artifact import Artifact
from autopilot.budget import Verdict
from autopilot.contracts import Stage
from autopilot.errors import Failure, VariantFailed
from autopilot.profile import Measurement
from autopilot.recipe import Recipe, Variant
from autopilot.result import TrialRecord, TrialState
from autopilot.search.hopeless import hopeless
from autopilot.search.index import Index
from autopilot.search.outcome import Outcome
from autopilot.search.ranking import Ranking
from autopilot.search.sampler import Sampler, Told
from autopilot.search.samples import (
    drop_samples,
    forget_samples,
    keep_samples,
    save_samples,
    settle_samples,
    unsettled_name,
)
from autopilot.space import SearchSpace

# So many trials in a row that the machine spoilt, each measured twice, end the search: more would go the same way.
UNSTABLE_IN_A_ROW = 3

# How often a run that waits for another one looks, in seconds: a trial takes seconds too.
LOOK_S = 0.25

Log = Callable[[TrialRecord], None]


class Keeps(Protocol):
    """What keeps claims and records: the study's Ledger, or nothing but a count where a search is replayed."""

    @property
    def is_shared(self) -> bool: ...

    def claim(self, variant: Variant, most: int) -> bool: ...

    def release(self) -> None: ...

    def give_up(self) -> None: ...

    def recover(self, *, all_free: bool = False) -> list[Variant]: ...

    def others(self) -> frozenset[str]: ...

    def lost(self) -> frozenset[str]: ...

    def finish(self, record: TrialRecord) -> int | None: ...

    def read(self, first: int) -> list[TrialRecord]: ...


class Book:
    """Records of one study in the order of trials; finds what was measured before.

    Records of other runs of the study come in with ``sync``. ``log`` is told of this run's own trials,
    ``note`` of what the user should know.
    """

    def __init__(
        self, sampler: Sampler, ledger: Keeps, ranking: Ranking, *, work: Path | None, space: SearchSpace
    ) -> None:
        """``work``: the folder that readings are kept in; None to keep none."""
        self.records: list[TrialRecord] = []
        self.log: Log = lambda record: None
        self.note: Callable[[str], None] = lambda text: None
        self._sampler = sampler
        self._ledger = ledger
        self._ranking = ranking
        self._work = work
        self._space = space
        self._own: list[TrialRecord] = []
        self._others: frozenset[str] = frozenset()  # variants that other runs are trying now
        self._lost: frozenset[str] = frozenset()  # variants that were cut off too often
        self._index = Index()

    def recover(self) -> None:
        """Take over what is finished; queue again what an interrupted run left half-done."""
        self._take_in()
        if self._work is not None:
            settle_samples(self._work, self.records)
            drop_samples(self._work, len(self.records))
        self._free(all_free=True)

    def sync(self) -> bool:
        """Take in the records of other runs, and what they are trying now.

        Whether a trial was freed whose run is gone: it is queued.
        """
        if not self._ledger.is_shared:
            return False
        self._take_in()
        return self._free()

    def _take_in(self, before: int | None = None) -> None:
        """Learn the records that are new; those with a number under ``before`` alone."""
        for record in self._ledger.read(len(self.records)):
            if before is None or record.number < before:
                self._sampler.learn(self._space, record.variant, self._told(self._index.original(record)))
                self._remember(record)

    def _free(self, *, all_free: bool = False) -> bool:
        freed = self._ledger.recover(all_free=all_free)
        for variant in freed:
            self._sampler.enqueue(self._space, variant, once=False)
        self._others, self._lost = self._ledger.others(), self._ledger.lost()
        return bool(freed)

    def claim(self, variant: Variant, total: int) -> bool:
        """Take ``variant`` for this run; False where another run has it, or ``total`` trials are under way or done."""
        return self._ledger.claim(variant, total)

    def is_barred(self, variant: Variant) -> bool:
        """Whether another run was trying ``variant`` when last looked, or it was cut off too often."""
        return variant.id in self._others or variant.id in self._lost

    def wait(self, total: int | None = None) -> bool:
        """Whether other runs are on the last of ``total`` trials (None: on any); then a moment has passed."""
        if not self._others or (total is not None and len(self.records) + len(self._others) < total):
            return False
        time.sleep(LOOK_S)
        return True

    def stopped(self, *, by_user: bool) -> None:
        """This run ends within a trial. Where the user did it, that says nothing against the variant.

        Else it may be what ended the run: a resume tries it once more, and then no more.
        """
        if by_user:
            self._ledger.release()
        else:
            self._ledger.give_up()

    def abandoned(self, trial: Trial) -> None:
        """A trial that this run's end cut off: it told nothing, and whoever goes on may try its variant."""
        self._sampler.abandon(trial)
        self._ledger.release()

    def first(self, baseline: Outcome, verdict: Verdict) -> bool:
        """Make ``baseline`` trial 0, unless another run has done so; whether this one did."""
        self._take_in()
        while not self.records:
            if self._ledger.claim(baseline.variant, 1):
                self.measured(None, baseline, verdict)
                return bool(self._own)
            time.sleep(LOOK_S)
            self.sync()
        return False

    def dead_end(self, recipe: Recipe) -> str | None:
        """Why ``recipe`` can't be built: some trial found that its first steps don't apply to this model."""
        return self._index.dead_end(recipe)

    def same_variant(self, variant: Variant) -> TrialRecord | None:
        """The trial that measured ``variant`` already, or that ended before its deployment mattered."""
        return self._index.same_variant(variant)

    def same_artifact(self, artifact: Artifact, variant: Variant) -> TrialRecord | None:
        """The trial that measured the same bytes in the same deployment under another recipe."""
        return self._index.same_artifact(artifact, variant)

    def hopeless(self, measured: Mapping[str, Measurement]) -> str | None:
        """Why a variant can't win whatever its quality: several in budget are clearly better already."""
        return hopeless(self.records, self._ranking, measured)

    def measured(self, trial: Trial | None, outcome: Outcome, verdict: Verdict) -> None:
        """A trial that was measured, to the end or to its first certain violation; None for one nobody asked for."""
        record = TrialRecord(
            id=outcome.variant.id,
            number=len(self.records),
            state=TrialState.PRUNED if outcome.cut_short else TrialState.COMPLETE,
            failure=None,
            reason=outcome.cut_short or outcome.remark,
            stage=outcome.stage.value,
            variant=outcome.variant,
            measured=dict(outcome.measured),
            verdict=verdict,
            seconds=dict(outcome.seconds),
            artifact=outcome.artifact,
            warnings=tuple(outcome.warnings),
        )
        # Under its number only once it has one for certain: see settle_samples.
        if self._work is not None:
            save_samples(self._work, unsettled_name(record.id), outcome, verdict)
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
    def measured_here(self) -> Sequence[TrialRecord]:
        """The records of this machine: all of a study that isn't shared, of a shared one this run's own."""
        return self._own if self._ledger.is_shared else self.records

    @property
    def is_unstable(self) -> bool:
        """Whether the machine spoilt the last few trials, one after the other."""
        last = self._own[-UNSTABLE_IN_A_ROW:]
        return len(last) == UNSTABLE_IN_A_ROW and all(r.failure is Failure.UNSTABLE for r in last)

    def skipped(self, trial: Trial, known: TrialRecord | None) -> None:
        """Tell the sampler of a variant for which nothing is run: it repeats ``known``, or can't be built."""
        self._sampler.tell(trial, Told(runnable=False) if known is None else self._told(self._index.original(known)))

    def duplicate(self, trial: Trial, variant: Variant, known: TrialRecord) -> None:
        """A recipe that built the same bytes as another: the sampler is told the same again, nothing is run."""
        reason = f"the same as trial {known.number}"
        record = replace(
            known, id=variant.id, number=len(self.records), state=TrialState.DUPLICATE, variant=variant, reason=reason
        )
        self._tell(trial, replace(record, seconds={}, log="", warnings=()))

    def _tell(self, trial: Trial | None, record: TrialRecord) -> None:
        """Store the record, tell the sampler, log it: in this order, since a kill may come in between."""
        number = self._ledger.finish(record)
        if number is None:
            self.note("this trial took so long that another run took its variant over; its figures are dropped")
            if self._work is not None:
                forget_samples(self._work, record.id)
            if trial is not None:
                self._sampler.abandon(trial)
            return
        if number > len(self.records):
            self._take_in(before=number)
        record = replace(record, number=number)
        if self._work is not None:
            keep_samples(self._work, record)
        told = self._told(self._index.original(record))
        if trial is None:
            self._sampler.learn(self._space, record.variant, told)
        else:
            self._sampler.tell(trial, told)
        self._remember(record)
        self._own.append(record)
        self.log(record)

    def _told(self, record: TrialRecord) -> Told:
        """What a sampler learns from ``record``."""
        violations = record.verdict.violations if record.verdict else {}
        if record.state is TrialState.COMPLETE:
            return Told(self._ranking.told(record), violations)
        if record.state is TrialState.PRUNED:
            return Told(None, violations)
        return Told(spoilt=True) if record.failure is Failure.UNSTABLE else Told(runnable=False)

    def _remember(self, record: TrialRecord) -> None:
        self.records.append(record)
        self._index.add(record)
