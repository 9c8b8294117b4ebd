"""The latency pass of a study: the baseline's live server, the A/A control, and what the machine did meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from autopilot import plugins, stats
from autopilot.artifact import Artifact
from autopilot.bench.control import PAIR_S, measure_control
from autopilot.bench.launcher import MIN_BLOCK_REQUESTS, MIN_BLOCKS
from autopilot.bench.live import Server
from autopilot.bench.rounds import Plan, Servers, measure_rounds
from autopilot.contracts import Stage
from autopilot.data import Split
from autopilot.errors import Failure, VariantFailed
from autopilot.observer import Observer
from autopilot.profile import Control, LatencyReading, Measurement
from autopilot.recipe import Deployment
from autopilot.search.allowance import Allowance
from autopilot.search.decider import Decider
from autopilot.search.outcome import BASELINE, Effort, GiveUp, Outcome, cap_s
from autopilot.search.prepare import Setup
from autopilot.search.shapes import open_traffic
from autopilot.search.steadiness import Drift, Reading, swing
from autopilot.search.traffic import Pair, TrafficPass, planned_rounds, request_pair_s, round_s

# Of one pair of processes: some 25 pairs of blocks, so that starting them takes less than half of the time.
ROUND_S = 1.5
# A pair of the control takes at most this part of what a verification may: a user in a hurry is in a hurry here too.
_CONTROL_PARTS = 8
Known = Callable[[Reading], Mapping[str, Measurement]]


class LatencyPass:
    """Reads requests of each variant in blocks interleaved with the baseline's.

    The baseline's server stays alive between trials, asleep on its pipe. ``control`` is the A/A reading,
    taken after the baseline's own. A reading during which the machine moved is taken again, once.
    """

    def __init__(self, setup: Setup, observer: Observer, baseline: Outcome, allowance: Allowance) -> None:
        self.control: Control | None = None
        self._setup = setup
        self._observer = observer
        self._baseline = baseline
        self._allowance = allowance
        self._drift = Drift(allowed=_allowed(setup))
        self._server: Server | None = None

    def take(self, baseline: Outcome, control: Control | None = None) -> None:
        """Read beside ``baseline`` from here on; ``control``: its A/A reading, where it was taken before."""
        self.close()
        self._baseline, self.control = baseline, control
        self._drift = Drift(allowed=self._drift.allowed, spread=control.spread if control is not None else 0.0)

    def close(self) -> None:
        """End the baseline's server."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def run(
        self, outcome: Outcome, effort: Effort, split: Split, known: Known, give_up: GiveUp = lambda measured: None
    ) -> Reading:
        """The reading of ``outcome``; ``known`` gives the measurements that follow from a reading, ``give_up``
        tells why a variant can't win, as in ``Decider``.

        Raises:
            VariantFailed: a server doesn't start or ends; UNSTABLE when the machine changed under two readings.
        """
        if outcome is self._baseline:
            reading = self._read(outcome, effort, split, known, give_up)
            self._drift.begin(split.name, reading.latency)
            if effort is BASELINE:
                self._observer.doing("measuring the model against itself")
                with outcome.timed("control"):
                    pair_s = min(PAIR_S, self._setup.problem.search.measure_cap_s / _CONTROL_PARTS)
                    live = self._baseline_server(split)
                    self.control = measure_control(live, lambda: self._start_baseline(split), pair_s=pair_s)
                self._drift.spread = self.control.spread
            return Reading(reading.latency, None, 0.0)
        reading = self._steady(outcome, effort, split, known, give_up)
        said = self._drift.remark(reading)
        if said is not None and said not in outcome.warnings:
            outcome.warnings.append(said)
        return reading

    def _steady(self, outcome: Outcome, effort: Effort, split: Split, known: Known, give_up: GiveUp) -> Reading:
        """A reading during which the machine kept still, or the second one."""
        reading = self._read(outcome, effort, split, known, give_up)
        why = swing(reading) or self._drift.moved(reading)
        if why is None:
            return reading
        self._observer.note(f"{why}; measured again")
        reading = self._read(outcome, effort, split, known, give_up)
        still = swing(reading)
        if still is not None:
            raise VariantFailed(
                Failure.UNSTABLE, f"{still}, twice in a row.", "Close what else runs on this machine, then run again."
            )
        return reading

    def _read(self, outcome: Outcome, effort: Effort, split: Split, known: Known, give_up: GiveUp) -> Reading:
        problem = self._setup.problem

        def reading_of(latency: LatencyReading, beside: LatencyReading | None) -> Reading:
            return Reading(latency, beside, self._drift.of(split.name, beside, verifying=effort.rounds > 1))

        decided = Decider(
            lambda *found: known(reading_of(*found)),
            problem.budget,
            problem.objectives,
            replace(effort, cap_s=cap_s(effort, problem, pair_s=0.0)),
            floor=self._floor(effort),
            give_up=give_up,
        )
        found = measure_rounds(
            lambda: self._servers(outcome, effort, split),
            plan=lambda pair: plan_of(self._setup, effort, pair),
            decided=decided,
            measure=TrafficPass(self._setup, effort) if problem.traffic.is_server else None,
        )
        self._drift.note(split.name, found[1])
        return reading_of(*found)

    def _floor(self, effort: Effort) -> float:
        """Half-width that no sampling undercuts: what processes differ by."""
        if self.control is None:
            return 0.0
        t = stats.t_quantile(0.975, self.control.pairs)
        return t * self.control.spread / math.sqrt(effort.rounds)

    @contextmanager
    def _servers(self, outcome: Outcome, effort: Effort, split: Split) -> Iterator[Servers]:
        """The candidate's server and the baseline's; fresh ones both for verification."""
        if outcome is self._baseline:
            baseline = self._baseline_server(split)
            self._open(baseline, outcome)
            yield baseline, None
            return
        if not effort.ends_early:
            self.close()
        baseline = self._baseline_server(split)
        self._open(baseline, None)
        with self._start(outcome.artifact, outcome.variant.deployment, split) as candidate:
            try:
                self._open(candidate, outcome)
                yield candidate, baseline
            except VariantFailed as exc:
                if baseline.is_alive:
                    raise
                # A crash is tried again, with a new baseline.
                message = f"the baseline's server ended beside it: {exc.message}"
                raise VariantFailed(Failure.CRASH, message, log=exc.log) from exc
            outcome.warnings.extend(w for w in candidate.warnings if w not in outcome.warnings)

    def _open(self, server: Server, outcome: Outcome | None) -> None:
        """Under scheduled traffic: what comes before the first window, which is no part of what is measured."""
        if self._setup.problem.traffic.is_server:
            open_traffic(server, self._setup, outcome, allowance=self._allowance, observer=self._observer)

    def _baseline_server(self, split: Split) -> Server:
        if self._server is not None and not self._server.is_alive:
            self.close()  # the kernel may have taken it while something else needed the memory
        if self._server is None:
            self._server = self._start_baseline(split)
        return self._server

    def _start_baseline(self, split: Split) -> Server:
        return self._start(self._baseline.artifact, self._baseline.variant.deployment, split)

    def _start(self, artifact: Artifact, deployment: Deployment, split: Split) -> Server:
        return Server.start(artifact.path, deployment, split=split, limits=self._allowance.limits)


def plan_of(setup: Setup, effort: Effort, pair: Pair) -> Plan:
    """How long ``pair`` is read with ``effort``, in how many rounds."""
    if setup.problem.traffic.is_server:
        cap = cap_s(effort, setup.problem, pair_s=request_pair_s(setup, pair))
        if effort.rounds == 1:
            return Plan(1, cap)
        return Plan(planned_rounds(setup, pair, effort), cap, max(ROUND_S, round_s(setup, pair)))
    pair_s = sum(server.request_s or 0.0 for server in pair if server is not None)
    cap = cap_s(effort, setup.problem, pair_s=pair_s)
    if effort.rounds == 1:
        return Plan(1, cap)
    # A round of a slow model takes its blocks whatever the cap is.
    one_s = max(ROUND_S, pair_s * MIN_BLOCKS * MIN_BLOCK_REQUESTS)
    return Plan(max(1, min(effort.rounds, int(cap / one_s))), cap, one_s)


def _allowed(setup: Setup) -> float | None:
    """How far the machine may move before a reading is taken again; None where no limit can tell.

    Relative limits are judged on interleaved ratios, in which what the machine does cancels.
    """
    margins = []
    for limit in setup.problem.budget.limits:
        found = plugins.find_axis(limit.axis)
        if not limit.relative and found is not None and found[1].stage is Stage.LATENCY:
            margins.append(limit.margin)
    return min(margins, default=None)
