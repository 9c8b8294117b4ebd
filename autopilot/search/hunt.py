"""The hunt: ask for a variant, build it, measure it, tell; until trials, time or variants are used up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from optuna.trial import Trial

from autopilot.artifact import Artifact
from autopilot.budget import Verdict
from autopilot.contracts import Stage
from autopilot.errors import Failure, VariantFailed
from autopilot.recipe import Recipe, Variant
from autopilot.result import TIME_UP, TrialRecord, cut_off_text
from autopilot.search.absent import STARTED, Absent, plain, started
from autopilot.search.book import Book
from autopilot.search.outcome import RETRIED, SCREENING, Effort, GiveUp, Outcome
from autopilot.search.proposer import Proposal
from autopilot.search.sampler import Sampler
from autopilot.search.stages import Screen, order, stage_costs
from autopilot.search.texts import variant_text
from autopilot.space import SearchSpace

# A sampler that keeps repeating itself is helped out with a random variant after this many.
REPEATS = 2


class Measures(Protocol):
    """Builds and measures variants: the study's Evaluator, or a recording that is replayed."""

    def build(self, recipe: Recipe, seconds: dict[str, float]) -> Artifact: ...

    def measure(
        self, variant: Variant, artifact: Artifact, effort: Effort, *, give_up: GiveUp, order: Sequence[Screen]
    ) -> Outcome: ...

    def verdict(self, outcome: Outcome) -> Verdict: ...

    def expected_s(self) -> Mapping[Screen, float]: ...


class Proposes(Protocol):
    """Says which variant is next, from the finished trials."""

    def next(self, records: Sequence[TrialRecord], is_new: Callable[[Variant], bool], left_s: float) -> Proposal: ...


class Watch:
    """Is told what happens; this one doesn't care."""

    def started(self, number: int, left_s: float, variant: Variant) -> None:
        """Trial ``number`` begins."""

    def finished(self, record: TrialRecord) -> None:
        """A trial ended."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Hunt:
    """One search over ``space``. ``deadline`` is on ``clock``, which a replay brings along.

    Without a ``proposer`` Optuna's sampler draws the variants. ``kept_s``: seconds between the deadline and the
    study's own, for the finalists; both may change while it runs.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: Sampler,
        book: Book,
        evaluator: Measures,
        *,
        trials: int,
        deadline: float,
        proposer: Proposes | None = None,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._space = space
        self._sampler = sampler
        self._book = book
        self._evaluator = evaluator
        self._trials = trials
        self.deadline = deadline
        self.kept_s = 0.0
        self.watch = watch or Watch()
        self._clock = clock
        self._repeats = 0
        self.cut_off: tuple[Variant, float] | None = None  # whose trial time ended, and after how many seconds
        self._exhausted = ""  # why there is nothing left to try
        self.absent = Absent()
        self.absent.saw(book.measured_here)
        if proposer is not None:
            sampler.guide(space, lambda: self._choose(proposer))

    def run(self) -> str:
        """Trials until their number, the time or what is worth trying is used up; why it ended."""
        while self._is_open():
            if self._left_s <= 0:
                kept_s = self.kept_s + self._left_s  # of a study that goes on there may be nothing left
                kept = f", but for {kept_s:.0f} s to measure the finalists again" if kept_s > 0 else ""
                return self._say(f"{TIME_UP}{kept}{self._cut_off_text}")
            trial, variant = self._sampler.ask(self._space)
            if self._exhausted:
                self._sampler.abandon(trial)
                continue
            if not self.is_new(variant):
                self._pass_over(trial, variant)
                continue
            if not self._book.claim(variant, self._trials):
                self._sampler.abandon(trial)  # another run was faster
                continue
            number = len(self._book.records)
            self.watch.started(number, self._left_s, variant)
            self._one(trial, variant)
            if len(self._book.records) == number:
                continue
            record = self._book.records[-1]
            self.watch.finished(record)
            if self._book.is_unstable:
                return self._say(f"the machine is too unstable to measure on: {record.reason}")
        if self._exhausted and len(self._book.records) < self._trials:
            return self._say(self._exhausted)
        if (done := len(self._book.records)) > self._trials:  # of a run that goes on with fewer
            return f"{done} trials were run already, and {self._trials} asked for"
        return f"all {self._trials} trials were run" if self._trials != 1 else "its one trial was run"

    @property
    def _cut_off_text(self) -> str:
        """What is said of a trial that time ended, where there is no other."""
        if self.cut_off is None or len(self._book.records) > 1:
            return ""
        variant, seconds = self.cut_off
        return cut_off_text(variant_text(variant, self._space), seconds)

    def _say(self, reason: str) -> str:
        self.watch.note(f"the search ends after {len(self._book.records)} of {self._trials} trials: {reason}")
        return reason

    def _choose(self, proposer: Proposes) -> Variant | None:
        proposal = proposer.next(self._book.records, self.is_new, self._left_s)
        if proposal.variant is None:
            self._exhausted = proposal.reason
        return proposal.variant

    def _is_open(self) -> bool:
        """Whether there is something left to try, once the last trials of other runs have ended."""
        while True:
            if self._book.sync():
                self._exhausted = ""
            waits = len(self._book.records) < self._trials and self._left_s > 0
            if not waits or not self._book.wait(None if self._exhausted else self._trials):
                break
        return len(self._book.records) < self._trials and not self._exhausted

    @property
    def _left_s(self) -> float:
        return self.deadline - self._clock()

    def is_new(self, variant: Variant) -> bool:
        """Whether a trial of ``variant`` could tell anything that isn't known."""
        if self._book.same_variant(variant) is not None or self._book.dead_end(variant.recipe) is not None:
            return False
        if self._book.is_barred(variant) or self.absent.bars(variant):
            return False
        return self._space.refusal(variant.recipe) is None

    def _pass_over(self, trial: Trial, variant: Variant) -> None:
        """Nothing is run; after a few such draws in a row a random new variant is queued."""
        if self._book.is_barred(variant) or self.absent.bars(variant):
            self._sampler.abandon(trial)
        else:
            self._book.skipped(trial, self._book.same_variant(variant))
        self._repeats += 1
        if self._repeats >= REPEATS and not self._sampler.enqueue_unseen(self._space, self.is_new):
            self._exhausted = "every variant of this space was tried"

    def _one(self, trial: Trial, variant: Variant) -> None:
        """One trial and its record; without one where the study's time ended it, which tells nothing about it."""
        self._repeats = 0
        for attempt in (1, 2):
            seconds: dict[str, float] = {}
            artifact = None
            begun = self._clock()
            try:
                artifact = self._evaluator.build(variant.recipe, seconds)
                twin = self._book.same_artifact(artifact, variant)
                if twin is not None:
                    self._book.duplicate(trial, variant, twin)
                    return
                outcome = self._evaluator.measure(
                    variant, artifact, SCREENING, give_up=self._book.hopeless, order=self._order()
                )
            except VariantFailed as exc:
                again = attempt == 1 and exc.failure in RETRIED
                if self._left_s <= 0 and (again or exc.failure is Failure.TIMEOUT):
                    self.cut_off = variant, self._clock() - begun
                    self._book.abandoned(trial)  # a run that goes on with the study has the time to try it
                    return
                if again:
                    self.watch.note(f"{exc.failure.value}: {exc.message} Trying once more.")
                    continue
                if exc.failure is Failure.PROVIDER_MISSING and not self._is_own(variant):
                    self._missing(trial, variant, exc)
                    return
                if exc.failure in STARTED:
                    self.absent.answered(variant)
                if artifact is not None and not exc.seconds:
                    seconds[Screen.LOAD.value] = self._clock() - begun - seconds.get(Screen.BUILD.value, 0.0)
                self._book.failed(trial, variant, exc, seconds | exc.seconds, was_built=artifact is not None)
                return
            if outcome.stage is not Stage.BUILD:  # what is too large is turned away before it is run
                self.absent.answered(variant)
            outcome.seconds = seconds | outcome.seconds
            self._book.measured(trial, outcome, self._evaluator.verdict(outcome))
            return

    def _given_there(self, variant: Variant) -> Variant:
        return plain(variant, self._space.default_deployment(variant.deployment.provider))

    def _is_own(self, variant: Variant) -> bool:
        """Whether a failure to start says something of ``variant`` itself.

        In this run something started in its place, or in another run of the study the model as given did.
        """
        if self.absent.is_ours(variant):
            return True
        given = self._given_there(variant)
        return not self.absent.doubts(given) and started(self._book.same_variant(given))

    def _missing(self, trial: Trial, variant: Variant, exc: VariantFailed) -> None:
        """A provider that never answered in this run: no verdict on ``variant``; the model as given decides."""
        self._book.abandoned(trial)
        given = self._given_there(variant)
        self.absent.doubt(variant)
        if self.is_new(given):
            self.watch.note(f"{exc.failure.value}: {exc.message} Trying the model as given there.")
            self._sampler.enqueue(self._space, given)
        elif self._book.is_barred(given) and not self.absent.doubts(given):
            self.watch.note(
                f"{exc.failure.value}: {exc.message} Another run of the study has the model as given there."
            )
        elif not self.absent.doubts(given) and self.absent.doubts_one_alone(variant):
            # The model as given can't decide: it was turned away before it was run. Then a second variant does.
            self.watch.note(f"{exc.failure.value}: {exc.message} Trying others there.")
        else:
            self.watch.note(self.absent.drop(variant, exc.message))

    def _order(self) -> Sequence[Screen]:
        return order(stage_costs(self._book.records), self._evaluator.expected_s())
