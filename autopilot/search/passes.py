"""The passes over one variant, each in processes of its own: cold, latency, energy, quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from autopilot.bench.live import Server
from autopilot.cache import SharedCache
from autopilot.contracts import Stage
from autopilot.data import Split
from autopilot.errors import Failure
from autopilot.meters.placement import TIME_SHARE
from autopilot.observer import Observer
from autopilot.profile import Control, Measurement, Profile, QualityReading
from autopilot.search import energy as energy_pass
from autopilot.search.allowance import Allowance
from autopilot.search.audit import fake_int8, fallen, hold
from autopilot.search.cold import ColdPass, Ready
from autopilot.search.costs import take_costs
from autopilot.search.outcome import Effort, GiveUp, Outcome
from autopilot.search.prepare import Setup
from autopilot.search.scored import QualityPass
from autopilot.search.shapes import meet_sizes, meets_sizes
from autopilot.search.steadiness import Reading
from autopilot.search.summary import measurement, summarise
from autopilot.search.timing import LatencyPass


class Passes:
    """Puts what each pass reads, and every figure that follows from it, into an outcome.

    ``baseline``: what variants are read beside and compared with; ``reference``: what losses are told against.
    """

    def __init__(
        self, setup: Setup, observer: Observer, reference: Outcome, *, allowance: Allowance, cache: SharedCache
    ) -> None:
        self.baseline = self.reference = reference
        self._setup = setup
        self._observer = observer
        self._allowance = allowance
        self._quality = QualityPass(setup, reference, cache)
        self._timing = LatencyPass(setup, observer, reference, allowance)
        self._cold_pass = ColdPass(setup, self._ready)

    def _ready(self, outcome: Outcome) -> Ready | None:
        if not meets_sizes(self._setup, outcome.variant.deployment):
            return None
        allowance, observer = self._allowance, self._observer
        return partial(meet_sizes, setup=self._setup, outcome=outcome, allowance=allowance, observer=observer)

    @property
    def control(self) -> Control | None:
        """The study's A/A reading; None before the baseline was measured."""
        return self._timing.control

    def take(self, baseline: Outcome, control: Control | None = None) -> None:
        """Read and compare with ``baseline`` from here on; ``control``: its A/A reading, where it was taken before."""
        self.baseline = baseline
        self._timing.take(baseline, control)

    def close(self) -> None:
        """End the baseline's server."""
        self._timing.close()

    def knows_score(self, outcome: Outcome, split: Split) -> bool:
        """Whether ``score`` would answer at once."""
        return self._quality.knows(outcome, split)

    def baseline_quality(self, split: Split) -> QualityReading:
        """The baseline's score on ``split``, after the reference's, which its losses are told against.

        Raises:
            VariantFailed: one of them can't be run.
        """
        if self.baseline is not self.reference:
            self._quality.run(self.reference, split, limits=self._allowance.limits, early=False)
        return self._quality.run(self.baseline, split, limits=self._allowance.limits, early=False)[0]

    def cold(self, outcome: Outcome) -> None:
        """Start, load, first answers, exit: load time, peak memory, placement."""
        self._observer.doing("starting and loading")
        baseline = None if outcome is self.baseline else self.baseline.measured
        with outcome.timed("load"):
            profile, warnings = self._cold_pass.run(outcome, limits=self._allowance.limits, baseline=baseline)
        outcome.warnings.extend(warnings)
        self.summarise(outcome, profile, Stage.SMOKE)
        with outcome.timed("load"):
            found = fallen(outcome, self._setup.splits.validation, self._allowance.limits, self._observer)
        self._hold(outcome, Failure.PROVIDER_FALLBACK, found)

    def _hold(self, outcome: Outcome, failure: Failure, found: str | None) -> None:
        hold(self._setup.problem, outcome, failure, found, is_baseline=outcome is self.baseline)

    def energy(self, outcome: Outcome, effort: Effort, split: Split) -> None:
        """Energy a sample, in a process of its own; nothing where no counter is there or nobody asks."""
        if not energy_pass.is_wanted(self._setup.problem, self._setup.target, effort):
            return
        self._observer.doing("measuring energy")
        assert outcome.profile is not None
        with outcome.timed("energy"):
            path, deployment = outcome.artifact.path, outcome.variant.deployment
            start = partial(Server.start, path, deployment, split=split, limits=self._allowance.limits)
            baseline = None if outcome is self.baseline else self.baseline.measured
            profile = energy_pass.with_energy(outcome.profile, start, self._setup.problem.budget, baseline)
        self.summarise(outcome, profile, Stage.LATENCY)

    def latency(self, outcome: Outcome, effort: Effort, split: Split, give_up: GiveUp = lambda measured: None) -> None:
        """Blocks of requests beside the baseline's, on the same cores."""
        self._observer.doing("measuring latency" + ("" if outcome is self.baseline else " beside the baseline"))
        problem = self._setup.problem
        names = tuple(dict.fromkeys([*problem.budget.axes, *problem.objectives, "latency_p50_ms"]))

        def known(reading: Reading) -> Mapping[str, Measurement]:
            profile = self._with_latency(outcome, reading)
            return {n: m for n in names if (m := measurement(n, profile, Stage.LATENCY)) is not None}

        with outcome.timed("profile"):
            reading = self._timing.run(outcome, effort, split, known, give_up)
        self.summarise(outcome, self._with_latency(outcome, reading), Stage.LATENCY)

    def _with_latency(self, outcome: Outcome, reading: Reading) -> Profile:
        assert outcome.profile is not None
        return replace(
            outcome.profile,
            latency=reading.latency,
            baseline_latency=reading.beside,
            control=self._timing.control,
            drift=reading.drift,
        )

    def score(self, outcome: Outcome, split: Split, *, early: bool) -> None:
        """Quality against the baseline on the same samples; audits what claims to be int8."""
        self._observer.doing("scoring")
        with outcome.timed("evaluate"):
            reading, audit = self._quality.run(outcome, split, limits=self._allowance.limits, early=early)
        if TIME_SHARE.name in (*self._setup.problem.budget.axes, *self._setup.problem.objectives):
            take_costs(outcome, split, self._allowance.limits, self._observer)
        assert outcome.profile is not None
        self.summarise(outcome, replace(outcome.profile, quality=reading, int8=audit), Stage.QUALITY)
        if reading.n < split.n:
            outcome.cut_short = f"certain violation of quality_drop on the first {reading.n} samples"
        self._hold(outcome, Failure.FAKE_INT8, fake_int8(audit, outcome.variant.deployment.provider))

    def summarise(self, outcome: Outcome, profile: Profile, stage: Stage, *, own_baseline: bool = False) -> None:
        """Measurements of every axis that is known after ``stage``."""
        own_baseline = own_baseline or outcome is self.baseline
        outcome.profile = profile
        baseline = None if own_baseline else self.baseline.measured
        outcome.measured |= summarise(self._setup.problem, profile, stage, baseline)
